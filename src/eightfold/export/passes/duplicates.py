"""Constants with the same content, and nodes that compute the same from the same: one of each is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.export.passes.graph_index import GraphIndex
from eightfold.files import sha256_of_bytes

if TYPE_CHECKING:
    import onnx

RANDOM_OPS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def duplicate_weights(graph: onnx.GraphProto) -> int:
    index = GraphIndex(graph)
    first: dict[str, str] = {}
    gone = set()
    for tensor in graph.initializer:
        key = _content(tensor)
        if key in first and index.replace(tensor.name, first[key]):
            gone.add(tensor.name)
        first.setdefault(key, tensor.name)
    if gone:
        kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    return len(gone)


def duplicate_nodes(graph: onnx.GraphProto) -> int:
    index = GraphIndex(graph)
    first: dict[bytes, onnx.NodeProto] = {}
    gone = []
    for node in graph.node:
        if node.op_type in RANDOM_OPS:
            continue
        twin = first.setdefault(_computation(node), node)
        if twin is node or len(twin.output) != len(node.output):
            continue
        if any(name in index.outputs or name in index.captured for name in node.output):
            continue
        for old, new in zip(node.output, twin.output, strict=True):
            index.replace(old, new)
        gone.append(node)
    index.remove(gone)
    return len(gone)


def _content(tensor: onnx.TensorProto) -> str:
    """Equal for equal tensors, whatever their names. The raw bytes are hashed by themselves: protobuf cannot write
    out a tensor of more than 2 GiB."""
    from onnx import TensorProto

    rest = TensorProto()
    for field, value in tensor.ListFields():
        if field.name in ("name", "doc_string", "raw_data"):
            continue
        if isinstance(value, int):
            setattr(rest, field.name, value)
        else:
            getattr(rest, field.name).MergeFrom(value)
    return sha256_of_bytes(tensor.raw_data) + sha256_of_bytes(rest.SerializeToString(deterministic=True))


def _computation(node: onnx.NodeProto) -> bytes:
    from onnx import NodeProto

    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = copy.doc_string = ""
    del copy.output[:]
    attributes = sorted(copy.attribute, key=lambda each: each.name)
    del copy.attribute[:]
    copy.attribute.extend(attributes)
    data: bytes = copy.SerializeToString(deterministic=True)
    return data
