"""Decompositions of torch operators that the exporters lack or write wrongly."""
