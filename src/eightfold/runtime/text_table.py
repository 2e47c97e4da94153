"""Columns of text for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def text_table(lines: Sequence[Sequence[str]], *, left: Collection[int] = ()) -> list[str]:
    """Pad cells to columns; the columns in `left` to the left, the others to the right.

    >>> text_table([["name", "ms"], ["a", "1.25"]], left={0})
    ['name    ms', 'a     1.25']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(_cell(line[at], width, at in left) for at, width in enumerate(widths)).rstrip() for line in lines]


def _cell(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)
