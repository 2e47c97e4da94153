"""Latency tables as CSV and Markdown, and the differences between two of them."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from eightfold.cli.app import main
from eightfold.errors import UsageError
from eightfold.runtime.bench.compare_tables import diff_tables, quotient
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.table_files import COLUMNS, csv_of, markdown_of, write_table
from eightfold.runtime.bench.timing import Interval
from tests.runtime.bench.test_latency import DEVICE, row, table


def speed(value: float, half: float = 0.01) -> Interval:
    return Interval(value=value, low=value * (1 - half), high=value * (1 + half), starts=6)


def test_csv_can_be_read_by_csv() -> None:
    text = csv_of(table(row(speedup=speed(2.0), cores=(0, 2), threads=2), row(name='a, "b"', batch=1)))
    first, second = csv.DictReader(text.splitlines())
    assert tuple(first) == COLUMNS
    assert (first["p50_ms"], first["speedup"], first["cores"], first["threads"]) == ("1.9", "2", "0 2", "2")
    assert (second["name"], second["speedup"], second["peak_memory_bytes"]) == ('a, "b"', "", "")


def test_markdown_has_a_line_for_each_row() -> None:
    lines = markdown_of(table(row(), row(name="with | bar", warmup_stable=False))).splitlines()
    assert lines[0] == "Cortex-A78AE, 6 cores"
    head = next(place for place, line in enumerate(lines) if line.startswith("| batch | candidate |"))
    assert set(lines[head + 1]) == set("| -")
    assert lines[head + 3].startswith("| 4 | with \\| bar | 1.900 |")
    assert lines[-1] == "- ~: not settled after the warm-up"


@pytest.mark.parametrize("suffix", [".json", ".csv", ".md"])
def test_the_suffix_says_the_form(suffix: str, tmp_path: Path) -> None:
    path = write_table(table(row()), tmp_path / f"t{suffix}")
    assert "pruned int8" in path.read_text()


def test_a_form_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a table as '\.xlsx'; allowed: \.json, \.csv, \.md"):
        write_table(table(row()), tmp_path / "t.xlsx")


def test_a_row_that_is_slower_fails() -> None:
    before = table(row(speedup=speed(2.0)))
    assert diff_tables(before, table(row(speedup=speed(1.8)))).failed
    assert not diff_tables(before, table(row(speedup=speed(1.8))), max_slowdown=0.15).failed
    assert not diff_tables(before, table(row(speedup=speed(1.8, half=0.2)))).failed  # not beyond doubt
    assert not diff_tables(before, table(row(speedup=speed(2.5)))).failed


def test_a_row_that_is_missing_fails() -> None:
    found = diff_tables(table(row(speedup=speed(2.0)), row(batch=1)), table(row(speedup=speed(2.0))))
    assert found.failed
    assert found.describe().splitlines()[-1].split() == ["1", "pruned", "int8", "-", "-", "missing"]


def test_medians_are_compared_on_one_machine_alone() -> None:
    fast, slow = (row(start_p50_ms=tuple(at * f for f in (1.0, 1.01, 0.99, 1.0, 1.0, 1.0))) for at in (1.0, 1.2))
    assert diff_tables(table(fast), table(slow)).failed
    elsewhere = DEVICE.model_copy(update={"board": "another"})
    found = diff_tables(table(fast), table(slow, device=elsewhere))
    assert not found.failed
    assert "another machine" in found.describe()
    assert "one start" in diff_tables(table(row()), table(row())).describe()


def test_tables_with_nothing_in_common() -> None:
    with pytest.raises(UsageError, match="no row in common; allowed: rows of the first: pruned int8 b4"):
        diff_tables(table(row()), table(row(name="other")))
    with pytest.raises(UsageError, match="a largest slowdown of 3; allowed: 0 to below 1"):
        diff_tables(table(row()), table(row()), max_slowdown=3)


def test_the_interval_of_a_quotient_covers_the_truth() -> None:
    """Two measurements of 6 starts each, by simulation: the interval of their quotient holds 1.25 in 95% or more."""
    from eightfold.runtime.bench.timing import interval_over_starts

    held = 0
    for seed in range(300):
        above, below = np.random.default_rng(seed).normal(0, 0.03, (2, 6))
        found = quotient(interval_over_starts(2.5 * np.exp(above)), interval_over_starts(2.0 * np.exp(below)))
        held += found.low <= 1.25 <= found.high
    assert held >= 0.93 * 300
    assert math.isclose(found.value, math.sqrt(found.low * found.high))


def test_diff_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", 2.0), ("b", 1.5)):
        table(row(speedup=speed(value))).save(tmp_path / f"{name}.json")

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["eightfold", "bench", "diff", *words])
        return main()

    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert run(a, b) == 1
    assert "0.75x" in capsys.readouterr().out
    assert run(a, b, "--max-slowdown", "0.5") == 0
    assert run(b, a) == 0
    assert LatencyTable.load(a).rows[0].speedup == speed(2.0)
