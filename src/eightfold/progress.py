"""Progress of long work, with an estimate of the time left: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY_S = 10.0


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield `items`, showing how far along `what` is.

    Args:
        items: anything iterable.
        what: the work, as a noun phrase ("calibrating", "epoch 2/4").
        total: number of items, when `items` has no length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if sys.stderr.isatty():
        yield from _bar(items, what, total)
    else:
        yield from _lines(items, what, total)


def _bar(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=what)


def _lines(items: Iterable[T], what: str, total: int | None) -> Iterator[T]:
    start = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said >= LINE_EVERY_S:
            said = now
            print(f"  {what}: {_state(done, total, now - start)}", file=sys.stderr, flush=True)


def _state(done: int, total: int | None, elapsed_s: float) -> str:
    if total is None:
        return f"{done} done, {elapsed_s:.0f} s"
    if done >= total:
        return f"{done}/{total}, {elapsed_s:.0f} s"
    return f"{done}/{total}, about {elapsed_s / done * (total - done):.0f} s left"
