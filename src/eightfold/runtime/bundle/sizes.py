"""Sizes of images as the network takes them: height and width of the tensor."""

from __future__ import annotations

from eightfold.errors import UsageError

Size = tuple[int, int]


def size_of(size: int | Size) -> Size:
    """(height, width) of one side or of both.

    >>> size_of(224)
    (224, 224)
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise UsageError(f"the size {size!r}", allowed="one side, or (height, width), in pixels")
    return sides


def size_text(size: Size) -> str:
    """As commands and files name a size.

    >>> size_text((480, 640))
    '480x640'
    """
    height, width = size
    return f"{height}x{width}"
