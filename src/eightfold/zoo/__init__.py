"""Model sources and data sets."""
