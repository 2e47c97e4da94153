"""Constants with the same content, and nodes that compute the same from the same: one of each is enough."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from eightfold.onnx_graph.graph_index import GraphIndex, keep
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

SKETCH_BYTES = 64
RANDOM_OPS = frozenset(
    {
        "Bernoulli",
        "Dropout",  # in training
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


def duplicate_weights(graph: onnx.GraphProto) -> int:
    """Merge weights of equal content. Returns the number removed."""
    index = GraphIndex(graph)
    alike: dict[bytes, list[onnx.TensorProto]] = {}
    gone = set()
    kinds = Counter(_kind(tensor) for tensor in graph.initializer)
    for tensor in graph.initializer:
        if kinds[_kind(tensor)] == 1:
            continue  # to read a weight is to copy it
        others = alike.setdefault(_sketch(tensor), [])
        twin = next((other for other in others if other.raw_data == tensor.raw_data), None)
        if twin is None:
            others.append(tensor)
        elif index.replace(tensor.name, twin.name):
            gone.add(tensor.name)
    if gone:
        keep(graph.initializer, lambda tensor: tensor.name not in gone)
    return len(gone)


def duplicate_nodes(graph: onnx.GraphProto) -> int:
    """Merge nodes that compute the same. Returns the number removed."""
    index = GraphIndex(graph)
    first: dict[bytes, onnx.NodeProto] = {}
    gone = []
    for node in graph.node:
        # What others' operators and inner graphs do may be random as well.
        if kind(node) in ("", *RANDOM_OPS) or any(inner_graphs(node)):
            continue
        twin = first.setdefault(_computation(node), node)
        if twin is node:
            continue
        if any(name in index.outputs or name in index.captured for name in node.output):
            continue
        for old, new in zip(node.output, twin.output, strict=True):
            if old:
                index.replace(old, new)
        gone.append(node)
    index.remove(gone)
    return len(gone)


def _kind(tensor: onnx.TensorProto) -> tuple[int, ...]:
    return tensor.data_type, *tensor.dims


def _sketch(tensor: onnx.TensorProto) -> bytes:
    """All of a tensor but its name and most of its raw bytes: equal for equal tensors, and seldom for others."""
    from onnx import TensorProto

    rest = TensorProto()
    for field, value in tensor.ListFields():
        if field.name in ("name", "doc_string"):
            continue
        if field.name == "raw_data":
            rest.raw_data = value[:SKETCH_BYTES] + str(len(value)).encode()
        elif isinstance(value, int):
            setattr(rest, field.name, value)
        else:
            getattr(rest, field.name).MergeFrom(value)
    data: bytes = rest.SerializeToString(deterministic=True)
    return data


def _computation(node: onnx.NodeProto) -> bytes:
    from onnx import NodeProto

    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = copy.doc_string = ""
    copy.output[:] = ["given" if name else "" for name in node.output]
    attributes = sorted(copy.attribute, key=lambda each: each.name)
    del copy.attribute[:]
    copy.attribute.extend(attributes)
    data: bytes = copy.SerializeToString(deterministic=True)
    return data
