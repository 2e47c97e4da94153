"""Sub-commands that measure, predict and report."""
