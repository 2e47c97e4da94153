"""Pruning to a measured latency: a network's layers, their profile, the plan, and the measurement that checks it."""
