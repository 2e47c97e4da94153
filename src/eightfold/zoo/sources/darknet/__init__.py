"""Darknet networks: cfg and weights files, read into a torch module and written back, pruned or not."""
