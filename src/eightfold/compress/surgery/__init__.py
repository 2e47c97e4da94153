"""Application of a plan to a module, and pruned modules on disk."""
