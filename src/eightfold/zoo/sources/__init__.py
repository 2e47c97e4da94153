"""Model sources: one file each, one registry in `registry.py`, one description of a loaded network in `base.py`."""
