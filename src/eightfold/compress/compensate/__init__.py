"""Compensation of removed channels: constants, means and least squares."""
