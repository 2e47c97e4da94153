"""Bundles as they are written: artifacts, shared weights, output location, provenance."""
