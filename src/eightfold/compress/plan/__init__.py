"""Pruning plans: selection rules, budgets, costs, changes of plans."""
