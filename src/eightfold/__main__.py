"""`python -m eightfold` and the `eightfold` program."""

from __future__ import annotations

import sys


def main() -> None:
    from eightfold.cli.app import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
