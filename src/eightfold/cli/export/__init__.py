"""Sub-commands that export, convert, quantize, build and compare."""
