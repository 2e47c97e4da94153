"""Whether INT8 pays on this machine: FP32, Q/DQ and QOperator forms of one graph take turns in one run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from eightfold.calib.graph import Graph, load_model
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path
from eightfold.runtime.alternate import Schedule
from eightfold.runtime.bench import BenchOptions, compare_latency
from eightfold.runtime.candidates import Candidate
from eightfold.values import Frozen


class Int8Speed(Frozen):
    """Median milliseconds per call, and how many times as fast as FP32 with its 95% interval."""

    fp32_ms: float
    qdq_ms: float
    qoperator_ms: float
    speedup: float
    low: float
    high: float

    @property
    def slower(self) -> bool:
        """Whether INT8 is slower than FP32 beyond doubt."""
        return self.high < 1

    def describe(self) -> str:
        times = f"FP32 {self.fp32_ms:.2f} ms, Q/DQ {self.qdq_ms:.2f} ms, QOperator {self.qoperator_ms:.2f} ms"
        ratio = f"{self.speedup:.2f} times as fast as FP32 [{self.low:.2f}, {self.high:.2f}]"
        if self.slower:
            return f"WARNING: INT8 is SLOWER than FP32 on this machine, {ratio}; keep FP32 ({times})"
        return f"INT8 is {ratio} ({times})"


def measure_int8(fp32_path: PathLike, int8_path: PathLike, *, seconds: float = 2.0) -> Int8Speed:
    """Time a graph and its Q/DQ form in onnxruntime, and the QOperator form that onnxruntime makes of the latter.

    Args:
        fp32_path: the float graph.
        int8_path: what `quantize` made of it for a CPU.
        seconds: timed seconds per form.
    """
    batch = Graph(load_model(fp32_path), str(fp32_path)).batch
    with tempfile.TemporaryDirectory() as folder:
        paths = {"fp32": Path(fp32_path), "qdq": Path(int8_path)}
        paths["qoperator"] = qoperator_form(int8_path, Path(folder) / "qoperator.onnx")
        candidates = [Candidate(name=name, path=path, batch=max(batch, 1)) for name, path in paths.items()]
        options = BenchOptions(schedule=Schedule(seconds=seconds), memory=False)
        table = compare_latency(candidates, baseline="fp32", options=options)
    rows = {row.name: row for row in table.rows}
    median = {name: row.timing.p50_ms or row.timing.mean_ms for name, row in rows.items()}
    ratio = rows["qdq"].speedup
    if ratio is None:
        raise ValueError("the bench gave no ratio to its baseline")
    return Int8Speed(
        **{f"{name}_ms": value for name, value in median.items()},
        speedup=ratio.value,
        low=ratio.low,
        high=ratio.high,
    )


def qoperator_form(int8_path: PathLike, output: PathLike) -> Path:
    """Write the graph with QLinear operators in place of Q/DQ pairs, as this onnxruntime merges them.

    The two forms run the same kernels where all pairs merge. The file depends on the version of onnxruntime.
    """
    ort = require("onnxruntime", "merge Q/DQ pairs")
    with atomic_path(output) as temporary:
        options = ort.SessionOptions()
        # Higher levels write layouts that only this machine's kernels read.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(temporary)
        ort.InferenceSession(str(int8_path), options, providers=["CPUExecutionProvider"])
    return Path(output)
