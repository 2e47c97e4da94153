"""Helpers around torch modules: calls, modes, norms, batches."""
