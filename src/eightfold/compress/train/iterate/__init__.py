"""Iterative pruning: many small steps with training after each."""
