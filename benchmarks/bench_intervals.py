"""Checks the intervals of `bench`: of ten repetitions, does the 95% interval of one hold the median of the others?

Usage: python benchmarks/bench_intervals.py [--repetitions 10] [--seconds 4] [--threads 1] [--minutes 9]

Ten rows: MobileNetV2 with random weights at 64x64, half pruned or not, FP32 and INT8, on onnxruntime and OpenVINO, at
batch 1 and 4, against the unpruned FP32 network on onnxruntime. Each repetition is a `bench` of its own. They are kept
in build/bench_intervals, so that a run that is stopped, or out of minutes, goes on where it was.
The table is printed and kept in benchmarks/results/bench_intervals.md.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torchvision

import eightfold as ef
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.timing import Interval
from eightfold.text_table import text_table

ROOT = Path(__file__).parent.parent
RESULT = Path(__file__).parent / "results" / "bench_intervals.md"
KEPT = ROOT / "build" / "bench_intervals"
SIZE, BATCHES = 64, (1, 4)
BASELINE = "fp32 onnxruntime"
# (variant, precision, backend) of the candidates beside the baseline.
OTHERS = (
    ("", "int8", "onnxruntime"),
    ("pruned ", "fp32", "onnxruntime"),
    ("pruned ", "int8", "onnxruntime"),
    ("", "int8", "openvino"),
    ("pruned ", "int8", "openvino"),
)
# The bar: this share of intervals hold, and half an interval is at most this share of its ratio.
HELD, HALF = 0.90, 0.05


@dataclass(frozen=True)
class Row:
    """The intervals of one candidate at one batch size, one of each repetition."""

    name: str
    batch: int
    intervals: tuple[Interval, ...]
    marks: str

    @property
    def held(self) -> int:
        """Number of intervals that hold the median of the other repetitions' ratios."""
        values = np.array([each.value for each in self.intervals])
        others = [float(np.median(np.delete(values, place))) for place in range(len(values))]
        return sum(each.low <= other <= each.high for each, other in zip(self.intervals, others, strict=True))

    @property
    def cells(self) -> tuple[str, ...]:
        values = [each.value for each in self.intervals]
        halves = [each.half_width for each in self.intervals]
        return (
            str(self.batch),
            self.name,
            f"{np.median(values):.3f}x",
            f"{min(values):.3f} to {max(values):.3f}",
            f"{self.held} of {len(values)}",
            f"{np.median(halves):.1%}",
            f"{max(halves):.1%}",
            self.marks,
        )


def make_networks(folder: Path) -> list[Candidate]:
    """The candidates; their files are made once."""
    found = [_candidate(folder, "", "fp32", "onnxruntime", batch) for batch in BATCHES]
    found += [_candidate(folder, *other, batch) for other in OTHERS for batch in BATCHES]
    if not all(each.path.exists() for each in found):
        for variant in ("", "pruned "):
            for batch in BATCHES:
                _export(folder, variant, batch)
    return found


def _candidate(folder: Path, variant: str, precision: str, backend: str, batch: int) -> Candidate:
    name = f"{variant}{precision} {backend}"
    return Candidate(name, _path(folder, variant, precision, batch), batch, backend=backend)


def _path(folder: Path, variant: str, precision: str, batch: int) -> Path:
    return folder / f"{variant.strip() or 'dense'}-{precision}-b{batch}.onnx"


def _export(folder: Path, variant: str, batch: int) -> None:
    import torch

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    if variant:
        ef.apply_plan(network, ef.plan_pruning(network, torch.zeros(1, 3, SIZE, SIZE), keep_ratio=0.5))
    path = _path(folder, variant, "fp32", batch)
    ef.simplify(ef.export_onnx(network, path, batch=batch, image_size=SIZE))
    rows = list(np.random.default_rng(0).standard_normal((32, 3, SIZE, SIZE)).astype(np.float32))
    ef.quantize(path, ef.calibrate(path, rows, None, method="minmax"), _path(folder, variant, "int8", batch))


def repeat(candidates: Sequence[Candidate], arguments: argparse.Namespace) -> list[LatencyTable]:
    """The tables of all repetitions so far, after as many more as there are minutes for."""
    end, tables = time.monotonic() + 60 * arguments.minutes, []
    options = BenchOptions(Schedule(arguments.seconds), SessionOptions(threads=arguments.threads), memory=False)
    for number in range(arguments.repetitions):
        path = KEPT / f"threads-{arguments.threads}-seconds-{arguments.seconds:g}-{number}.json"
        if not path.exists():
            if time.monotonic() > end:
                break
            compare_latency(candidates, baseline=BASELINE, options=options).save(path)
        tables.append(LatencyTable.load(path))
    return tables


def rows_of(tables: Sequence[LatencyTable]) -> list[Row]:
    """One row for each candidate and batch."""
    intervals, marks = defaultdict[tuple[int, str], list[Interval]](list), defaultdict[tuple[int, str], set[str]](set)
    for table in tables:
        for row in table.rows:
            if row.speedup is not None:
                intervals[row.batch, row.name].append(row.speedup)
                marks[row.batch, row.name].update(row.marks)
    return [
        Row(name, batch, tuple(found), "".join(sorted(marks[batch, name])))
        for (batch, name), found in intervals.items()
    ]


def report(tables: Sequence[LatencyTable]) -> str:
    """The table, and below it the bar."""
    rows, device = rows_of(tables), tables[0].device
    head = ("batch", "candidate", "ratio", "of repetitions", "held", "half interval", "widest", "marks")
    total = sum(len(row.intervals) for row in rows)
    held, widest = sum(row.held for row in rows), max(each.half_width for row in rows for each in row.intervals)
    narrow = sum(each.half_width <= HALF for row in rows for each in row.intervals)
    first = tables[0].rows[0]
    lines = [
        f"{device.line()}; {len(tables)} repetitions; threads: {first.threads} pinned to cores {first.cores}",
        f"other work kept {np.median([table.others_cores for table in tables]):.1f} cores busy (median of repetitions)",
        *text_table([head, *(row.cells for row in rows)]),
        f"held: {held} of {total} (bar: {HELD:.0%}): {'holds' if held >= HELD * total else 'MISSED'}",
        f"half an interval: {narrow} of {total} at most {HALF:.0%} of the ratio, widest {widest:.1%} (bar: all): "
        + ("holds" if widest <= HALF else "MISSED"),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="timed seconds per row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no repetition after so many minutes")
    arguments = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    tables = repeat(make_networks(KEPT), arguments)
    text = report(tables)
    print(text)
    if len(tables) == arguments.repetitions:
        RESULT.write_text(f"# benchmarks/bench_intervals.py\n\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
