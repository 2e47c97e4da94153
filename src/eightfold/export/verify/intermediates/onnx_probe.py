"""The inner tensors of an ONNX graph: its nodes' outputs are made outputs, some hundred megabytes of them at a time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Arrays
from eightfold.export.verify.intermediates.probe import UNKNOWN_BYTES, Intermediate, Intermediates, See, chunks
from eightfold.export.verify.verify import runner
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.onnx_graph.qoperator import OUTPUT_SCALE, with_dequantized
from eightfold.onnx_graph.shape_inference import inferred_shapes

if TYPE_CHECKING:
    import onnx

MOVES = frozenset(
    {
        "Identity",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Dropout",
        "Cast",
        "Expand",
    }
)


class OnnxProbe:
    """A fixed-size ONNX file or graph, run by onnxruntime without its optimizations."""

    def __init__(self, source: PathLike | onnx.ModelProto) -> None:
        self._source = source

    def watch(self, inputs: Arrays, see: See, wanted: Collection[int] | None = None) -> Intermediates:
        model = load_onnx(self._source) if isinstance(self._source, str | Path) else self._source
        if any(node.op_type in OUTPUT_SCALE and node.op_type.startswith("Q") for node in model.graph.node):
            model = with_dequantized(model)
        names, inside = intermediates_of(model)
        sizes = tensor_bytes(model)
        asked = [name for place, name in enumerate(names) if wanted is None or place in wanted]
        place_of = {name: place for place, name in enumerate(names)}
        for chunk in chunks([name for name in asked if sizes.get(name, 1)], sizes):
            with _putting_out(model, chunk):
                run = runner(model, optimize=False)
            for name, array in run(inputs).items():
                if np.issubdtype(array.dtype, np.floating):
                    see(place_of[name], array)
        return inside


def intermediates_of(model: onnx.ModelProto) -> tuple[list[str], Intermediates]:
    """Names of the tensors that depend on the inputs, by place, and what they are."""
    weights = {tensor.name for tensor in model.graph.initializer}
    place_of = {value.name: -1 for value in model.graph.input if value.name not in weights}
    names, tensors = list[str](), list[Intermediate]()
    for node in model.graph.node:
        sources = {place_of[name] for name in _reads(node) if name in place_of}
        if not sources:
            continue
        known = tuple(sorted(source for source in sources if source >= 0))
        for name in filter(None, node.output):
            place_of[name] = len(names)
            names.append(name)
            tensors.append(Intermediate(name, node.op_type, known, node.op_type in MOVES))
    outputs = tuple(place_of[each.name] for each in model.graph.output if place_of.get(each.name, -1) >= 0)
    return names, Intermediates(tuple(tensors), outputs)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of a node's inputs, and of what the graphs inside it read."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def tensor_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Bytes in float32 of the graph's tensors with known shapes; 0 for invisible ones."""
    from onnx import TensorProto

    # onnxruntime hands out no bfloat16.
    floats = (TensorProto.UNDEFINED, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    sizes = {}
    for value in inferred_shapes(model):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim]
        known = tensor.HasField("shape") and all(dims)
        sizes[value.name] = (4 * math.prod(dims) if known else UNKNOWN_BYTES) if tensor.elem_type in floats else 0
    return sizes


@contextlib.contextmanager
def _putting_out(model: onnx.ModelProto, names: Sequence[str]) -> Iterator[None]:
    """The graph with these outputs, for a while."""
    from onnx import ValueInfoProto

    kept = [ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    try:
        yield
    finally:
        del model.graph.output[:]
        model.graph.output.extend(kept)
