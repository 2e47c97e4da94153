"""One run: its files, networks and artifacts, and the runner that skips unchanged steps."""
