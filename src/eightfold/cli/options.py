"""Small values that several sub-commands read from the command line."""

from __future__ import annotations

from eightfold.errors import UsageError


def image_size(text: str) -> tuple[int, int]:
    """(height, width) of 'SIDE' or 'HEIGHTxWIDTH'.

    >>> image_size("480x640")
    (480, 640)
    """
    try:
        sides = [int(part) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise UsageError(f"--size {text}", allowed="SIDE or HEIGHTxWIDTH, e.g. 224 or 480x640")
    return sides[0], sides[-1]
