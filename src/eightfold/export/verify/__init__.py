"""Numeric checks of each export step against the step before it."""
