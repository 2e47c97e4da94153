"""Least squares in bounded memory: moments, patches, dual form."""
