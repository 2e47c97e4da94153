"""`python -m eightfold` and the `eightfold` program."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of `python -m eightfold` and of the `eightfold` command."""
    try:
        from eightfold.cli.app import main as run
    except KeyboardInterrupt:  # the command line that would say so is not there yet
        print("eightfold: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
