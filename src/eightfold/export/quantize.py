"""`quantize`: ranges and a target's rules, applied to a float graph."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from eightfold.calib.graph import Graph, read_graph
from eightfold.calib.ranges import Ranges
from eightfold.export.fold import prepare
from eightfold.export.qdq import apply_qdq
from eightfold.export.qdq_plan import FloatRules, QdqPlan, plan_qdq
from eightfold.export.targets import target_named
from eightfold.extras import require
from eightfold.files import PathLike, write_bytes
from eightfold.values import Frozen


class QuantReport(Frozen):
    """What `quantize` did.

    Args:
        target: the target asked for.
        method: how the ranges were chosen.
        quantized: labels of the nodes that run on integers.
        kept_float: label of a node that could have been quantized -> why it was not.
    """

    target: str
    method: str
    quantized: tuple[str, ...]
    kept_float: dict[str, str]

    def describe(self) -> str:
        lines = [f"{len(self.quantized)} layers in INT8 for {self.target}, {len(self.kept_float)} kept in float"]
        lines += [f"  {name}: {reason}" for name, reason in self.kept_float.items()]
        return "\n".join(lines)


def quantize(
    onnx_path: PathLike,
    ranges: Ranges,
    output: PathLike,
    *,
    target: str = "cpu-x86",
    keep_float: Collection[str] = (),
    float_outputs: bool = False,
) -> tuple[Path, QuantReport]:
    """Write the INT8 form of a graph for a target. The same inputs give the same bytes.

    Args:
        onnx_path: the FP32 graph, of any batch size.
        ranges: of that network; made at any batch size.
        output: where the quantized graph goes. Replaced only when all went well.
        target: "cpu-x86", "cpu-arm", "openvino", "tensorrt", "tensorrt:8.2", "rtx:sm86", "tensorrt-dla", ...
        keep_float: names of nodes to leave in float.
        float_outputs: leave the layers whose result leaves the graph in float: a little slower, and the outputs are
            not rounded to 256 levels.

    Returns:
        The output's path, and what was done.

    Raises:
        UnknownNameError: no such target.
        CalibrationError: the ranges belong to another network, or the graph cannot be quantized.
    """
    rules = target_named(target)
    graph = read_graph(onnx_path)
    ranges.check_graph(graph.digest(), str(onnx_path))
    prepared = Graph(prepare(graph), graph.name)
    plan = plan_qdq(prepared, ranges, rules, FloatRules(frozenset(keep_float), float_outputs=float_outputs))
    model = apply_qdq(prepared, plan)
    require("onnx", "check models").checker.check_model(model)
    write_bytes(output, model.SerializeToString(deterministic=True))
    return Path(output), _report(plan, target, ranges)


def _report(plan: QdqPlan, target: str, ranges: Ranges) -> QuantReport:
    return QuantReport(target=target, method=ranges.method, quantized=tuple(plan.quantized), kept_float=plan.kept_float)
