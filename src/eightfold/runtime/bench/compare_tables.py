"""Differences between two latency tables, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from eightfold.errors import UsageError
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bench.timing import Interval
from eightfold.text_table import text_table

MAX_SLOWDOWN = 0.03


@dataclass(frozen=True)
class RowDifference:
    """One candidate at one batch size in two tables.

    Attributes:
        change: how many times as fast it is in the second table; None where it is missing there, or where the tables
            give nothing to compare.
        basis: "speed-up", which may be compared between any two runs, or "p50", on one machine alone.
        slower: by more than the limit, beyond doubt: the interval of `change` lies below 1, its value below 1 - limit.
    """

    name: str
    batch: int
    change: Interval | None
    basis: str
    slower: bool

    @property
    def cells(self) -> tuple[str, ...]:
        change = str(self.change) if self.change else "-"
        verdict = "SLOWER" if self.slower else "" if self.change else self.basis
        return str(self.batch), self.name, change, self.basis if self.change else "-", verdict


@dataclass(frozen=True)
class TableDifference:
    """All rows of the first table, compared with those of the second."""

    rows: tuple[RowDifference, ...]

    @property
    def failed(self) -> bool:
        """True if a row became slower, or is missing in the second table."""
        return any(row.slower or row.basis == "missing" for row in self.rows)

    def describe(self) -> str:
        """A table for a person."""
        head = ("batch", "candidate", "times as fast [95%]", "by", "")
        return "\n".join(text_table([head, *(row.cells for row in self.rows)], left={1, 3, 4}))


def diff_tables(before: LatencyTable, after: LatencyTable, *, max_slowdown: float = MAX_SLOWDOWN) -> TableDifference:
    """Compare two tables row by row.

    Speed-ups are compared where both rows have one: they do not depend on the clocks and neighbours of the day. Medians
    are compared where there is none, if both tables are of one kind of machine.

    Args:
        max_slowdown: share of its speed that a row may lose.

    Raises UsageError where no row is in both.
    """
    if not 0 <= max_slowdown < 1:
        raise UsageError(f"a largest slowdown of {max_slowdown:g}", allowed="0 to below 1, a share of the speed")
    after_rows = {(row.name, row.batch): row for row in after.rows}
    if not any((row.name, row.batch) in after_rows for row in before.rows):
        raise UsageError(
            "the two tables have no row in common",
            allowed=f"rows of the first: {', '.join(f'{row.name} b{row.batch}' for row in before.rows)}",
            remedy="measure the same candidates and batches",
        )
    comparable = before.is_of(after.device)
    return TableDifference(tuple(_differences(before, after_rows, comparable, max_slowdown)))


def _differences(
    before: LatencyTable, after: dict[tuple[str, int], LatencyRow], same_machine: bool, limit: float
) -> Iterator[RowDifference]:
    for row in before.rows:
        other = after.get((row.name, row.batch))
        if other is None:
            yield RowDifference(row.name, row.batch, None, "missing", False)
            continue
        basis, change = _change(row, other, same_machine)
        slower = change is not None and change.high < 1 and change.value < 1 - limit
        yield RowDifference(row.name, row.batch, change, basis, slower)


def _change(row: LatencyRow, other: LatencyRow, same_machine: bool) -> tuple[str, Interval | None]:
    if row.speedup and other.speedup:
        return "speed-up", quotient(other.speedup, row.speedup)
    if not same_machine:
        return "another machine", None
    times = row.p50_interval_ms, other.p50_interval_ms
    if times[0] and times[1]:
        return "p50", quotient(times[0], times[1])
    return "one start", None


def quotient(above: Interval, below: Interval) -> Interval:
    """Of two independent estimates: half widths add in squares, on a logarithmic scale."""
    middle = math.log(above.value / below.value)
    halves = [math.log(each.high / each.low) / 2 for each in (above, below)]
    half = math.hypot(*halves)
    return Interval(
        value=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        starts=min(above.starts, below.starts),
    )
