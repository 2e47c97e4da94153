"""Measures the speed-up of INT8 on this machine: FP32, Q/DQ and QOperator forms of one graph alternate in one run."""

from __future__ import annotations

import platform
import warnings
from pathlib import Path
from typing import Literal, get_args

from eightfold.files import PathLike, write_bytes
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.onnx_graph.qoperator import qoperator_form
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyRow
from eightfold.runtime.bench.timing import Interval
from eightfold.scratch import scratch_folder
from eightfold.values import Frozen

Form = Literal["qdq", "qoperator"]
FORMS: tuple[Form, ...] = get_args(Form)
MEASURED_S = 0.5  # timed seconds per form: enough to tell forms apart that differ by some percent
QOPERATOR_GAIN = 1.1
SHOWN = {"qdq": "Q/DQ", "qoperator": "QOperator"}


class SlowInt8Warning(UserWarning):
    """An INT8 graph is slower than the float graph that it was made from."""


class Int8Speed(Frozen):
    """Median milliseconds per call; of the faster INT8 form also how many times as fast as FP32, with its 95% interval.

    The form is "qoperator" only where it is faster than "qdq" by QOPERATOR_GAIN beyond doubt: fewer programs read it,
    and OpenVINO, which may run the pairs faster still, is none of them.
    """

    fp32_ms: float
    qdq_ms: float
    qoperator_ms: float
    form: Form
    speedup: float
    low: float
    high: float

    @property
    def int8_ms(self) -> float:
        """Of the faster form."""
        return self.qoperator_ms if self.form == "qoperator" else self.qdq_ms

    @property
    def slower(self) -> bool:
        """True if INT8 is slower than FP32 beyond doubt."""
        return self.high < 1

    def describe(self) -> str:
        """Text for a person: latencies, speed-up, and advice."""
        times = f"FP32 {self.fp32_ms:.2f} ms, Q/DQ {self.qdq_ms:.2f} ms, QOperator {self.qoperator_ms:.2f} ms"
        ratio = f"{self.speedup:.2f} times as fast as FP32 [{self.low:.2f}, {self.high:.2f}]"
        if self.slower:
            return f"INT8 is SLOWER than FP32 on this machine, {ratio}; keep FP32 ({times})"
        return f"INT8 is {ratio} as {SHOWN[self.form]} ({times})"


def measure_int8(fp32_path: PathLike, int8_path: PathLike, *, seconds: float = 2.0) -> Int8Speed:
    """Time a graph and its Q/DQ form in onnxruntime, and the QOperator form that onnxruntime makes of the latter.

    Args:
        fp32_path: the float graph.
        int8_path: what `quantize` made of it for a CPU, with Q/DQ pairs.
        seconds: timed seconds per form.
    """
    with scratch_folder() as folder:
        return _measured(Path(fp32_path), Path(int8_path), qoperator_form(int8_path, folder / "q.onnx"), seconds)


def keep_the_faster(fp32_path: PathLike, int8_path: PathLike, *, seconds: float) -> Int8Speed:
    """Replace a Q/DQ graph by its QOperator form where that is faster beyond doubt on this machine.

    Warns:
        SlowInt8Warning: neither is as fast as FP32.
    """
    with scratch_folder() as folder:
        other = qoperator_form(int8_path, folder / "q.onnx")
        speed = _measured(Path(fp32_path), Path(int8_path), other, seconds)
        if speed.form == "qoperator":
            write_bytes(int8_path, other.read_bytes())
    if speed.slower:
        warnings.warn(SlowInt8Warning(speed.describe()), stacklevel=3)
    return speed


def measures_target(target_name: str) -> bool:
    """True if latencies measured on this machine are those of the target."""
    return target_name == "cpu-x86" and platform.machine().lower() in ("x86_64", "amd64")


def _measured(fp32: Path, qdq: Path, qoperator: Path, seconds: float) -> Int8Speed:
    batch = max(ModelGraph(load_onnx(fp32), str(fp32)).batch, 1)
    paths = {"fp32": fp32, "qdq": qdq, "qoperator": qoperator}
    candidates = [Candidate(name=name, path=path, batch=batch) for name, path in paths.items()]
    options = BenchOptions(schedule=Schedule(seconds=seconds), memory=False)
    rows = {row.name: row for row in compare_latency(candidates, baseline="fp32", options=options).rows}
    ratios = {form: _ratio(rows[form]) for form in FORMS}
    form: Form = "qoperator" if ratios["qoperator"].low > QOPERATOR_GAIN * ratios["qdq"].value else "qdq"
    return Int8Speed(
        **{f"{name}_ms": row.timing.p50_ms or row.timing.mean_ms for name, row in rows.items()},
        form=form,
        speedup=ratios[form].value,
        low=ratios[form].low,
        high=ratios[form].high,
    )


def _ratio(row: LatencyRow) -> Interval:
    if row.speedup is None:
        raise ValueError("the bench gave no ratio to its baseline")
    return row.speedup
