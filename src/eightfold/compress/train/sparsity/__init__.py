"""Sparse training: penalties that push whole channels to zero, so that pruning them afterwards costs little."""
