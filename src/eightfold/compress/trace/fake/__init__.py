"""Runs of a model on tensors without data, so that a trace costs no arithmetic."""
