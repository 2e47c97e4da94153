"""Sub-commands that calibrate."""
