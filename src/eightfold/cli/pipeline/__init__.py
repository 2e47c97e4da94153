"""Sub-commands that run recipes."""
