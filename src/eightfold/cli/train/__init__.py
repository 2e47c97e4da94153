"""Sub-commands that train."""
