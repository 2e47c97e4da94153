"""Columns of text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence


def text_table(lines: Sequence[Sequence[str]], *, left: Collection[int] = ()) -> list[str]:
    """Pad cells to columns; the columns in `left` to the left, the others to the right.

    >>> text_table([["name", "ms"], ["a", "1.25"]], left={0})
    ['name    ms', 'a     1.25']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(_cell(line[at], width, at in left) for at, width in enumerate(widths)).rstrip() for line in lines]


def folded_table(
    lines: Sequence[Sequence[str]], *, left: Collection[int] = (), title: int, width: int | None
) -> list[str]:
    """The same table; where it would be wider than `width` characters, the column `title` becomes headings, each above
    the rows that share it.

    >>> folded_table([["batch", "name", "ms"], ["1", "a", "2"], ["1", "b", "1"], ["8", "a", "9"]], title=1, width=12)
    ['batch  ms', 'a', '    1   2', '    8   9', 'b', '    1   1']
    """
    table = text_table(lines, left=left)
    if width is None or max(map(len, table)) <= width:
        return table
    kept = [at for at in range(len(lines[0])) if at != title]
    head, *rows = text_table(
        [[line[at] for at in kept] for line in lines], left={place for place, at in enumerate(kept) if at in left}
    )
    under: dict[str, list[str]] = {}
    for line, row in zip(lines[1:], rows, strict=True):
        under.setdefault(line[title], []).append(row)
    return [head, *(text for name, group in under.items() for text in (name, *group))]


def wrapped(line: str, width: int | None) -> list[str]:
    """A line of prose in lines of at most `width` characters, those after the first indented.

    >>> wrapped("*: the machine was busy", 16)
    ['*: the machine', '   was busy']
    """
    return [line] if width is None else textwrap.wrap(line, max(width, 20), subsequent_indent="   ")


def _cell(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)
