"""Ranges found at one image size, for the same network at another: calibrated once, emitted at each size."""

from __future__ import annotations

import numpy as np

from eightfold.calib.ranges import Ranges
from eightfold.errors import CalibrationError
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import ModelGraph, read_graph


def ranges_at_size(ranges: Ranges, calibrated: PathLike, other: PathLike) -> Ranges:
    """The same ranges for a graph of the network at another image size.

    Args:
        ranges: found on `calibrated`.
        calibrated, other: float graphs of one network.

    Raises:
        CalibrationError: the ranges are another graph's, or the two differ in more than sizes: in nodes, in the names
            of tensors, or in weights. Transformers that pad their windows do, at sizes where one needs padding.
    """
    first, second = read_graph(calibrated), read_graph(other)
    ranges.check_graph(first.digest(), first.name)
    if _nodes(first) != _nodes(second):
        raise _refusal(first, second, "nodes or names of tensors")
    for name, tensor in first.weights.items():
        if name not in second.weights:
            raise _refusal(first, second, f"constants ({name!r})")
        if not _alike(first, second, name):
            raise _refusal(first, second, f"weights ({tensor.name!r})")
    return ranges.model_copy(update={"graph": second.digest()})


def _nodes(graph: ModelGraph) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    return [(node.domain, node.op_type, tuple(node.input), tuple(node.output)) for node in graph.model.graph.node]


def _alike(first: ModelGraph, second: ModelGraph, name: str) -> bool:
    """Sizes, and tables that were stretched to the image, may differ; what has one shape in both is one weight."""
    onnx = require("onnx", "read models")
    one, other = (onnx.numpy_helper.to_array(graph.weights[name]) for graph in (first, second))
    return one.dtype == other.dtype and (
        one.dtype.kind != "f" or one.shape != other.shape or bool(np.array_equal(one, other))
    )


def _refusal(first: ModelGraph, second: ModelGraph, what: str) -> CalibrationError:
    return CalibrationError(
        f"{first.name} and {second.name} differ in {what}, not in sizes alone",
        allowed="one network at two image sizes",
        remedy="calibrate each size, in a separate bundle",
    )
