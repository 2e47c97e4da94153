"""Graphs without their weights, which lie in one file beside them: what is passed on from process to process is small.

Simplifiers copy whatever they are given, and protobuf cannot pass on more than 2 GiB. Weights that a simplifier need
not see are inputs to it: what it finds out about the nodes holds all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from eightfold.onnx_graph.external_data import load_external_data
from eightfold.onnx_graph.graph_index import keep
from eightfold.onnx_graph.onnx_files import (
    ALIGNMENT_BYTES,
    SMALLEST_EXTERNAL_BYTES,
    load_onnx,
    refer_to,
    shell_of,
)
from eightfold.onnx_graph.shape_inference import weight_bytes

if TYPE_CHECKING:
    import onnx

References: TypeAlias = "Mapping[str, onnx.TensorProto]"

WEIGHTS = "weights.data"


def write_without_weights(model: onnx.ModelProto, path: Path, known: References | None = None) -> References:
    """Write the graph to `path`, its weights to the end of a file beside it, which graphs in one folder share. Nothing
    is synced to the disk: these files are for a while only.

    Args:
        known: references by name to what that file holds already; it is not written again.

    Returns:
        References by name to all weights that lie beside the graph.
    """
    shell = shell_of(model)
    with path.with_name(WEIGHTS).open("a+b") as stream:
        for tensor in model.graph.initializer:
            large = tensor.HasField("raw_data") and weight_bytes(tensor) >= SMALLEST_EXTERNAL_BYTES
            shell.graph.initializer.append(_beside(tensor, stream, (known or {}).get(tensor.name)) if large else tensor)
    path.write_bytes(shell.SerializeToString(deterministic=True))
    return _references(shell)


def load_without_weights(path: Path, *, hidden_bytes: int = sys.maxsize) -> tuple[onnx.ModelProto, References]:
    """Read what `write_without_weights` wrote, with its weights; and references by name to where they lie.

    Args:
        hidden_bytes: weights of at least that size become inputs, until `restore_weights` is called.
    """
    model = load_onnx(path, external=False)
    known = _references(model)
    _hide(model, {name for name, tensor in known.items() if _place(tensor)[1] >= hidden_bytes})
    load_external_data(model, path.parent)
    return model, known


def restore_weights(model: onnx.ModelProto, known: References) -> None:
    """Make weights, as references, of those inputs that were weights before they were hidden."""
    hidden = [value.name for value in model.graph.input if value.name in known]
    keep(model.graph.input, lambda value: value.name not in known)
    model.graph.initializer.extend(known[name] for name in hidden)


def bytes_beside(path: Path) -> int:
    """Size of the weights beside a graph, in bytes."""
    return sum(_place(tensor)[1] for tensor in load_onnx(path, external=False).graph.initializer)


def _hide(model: onnx.ModelProto, names: set[str]) -> None:
    from onnx import helper

    hidden = [tensor for tensor in model.graph.initializer if tensor.name in names]
    model.graph.input.extend(helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in hidden)
    keep(model.graph.initializer, lambda tensor: tensor.name not in names)


def _references(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    from onnx import TensorProto

    found = {}
    for tensor in model.graph.initializer:
        if tensor.external_data:
            found[tensor.name] = TensorProto()
            found[tensor.name].CopyFrom(tensor)
    return found


def _beside(tensor: onnx.TensorProto, stream: BinaryIO, known: onnx.TensorProto | None) -> onnx.TensorProto:
    """A reference to the content of `tensor`, which is written to the end of the file unless that holds it already."""
    raw = tensor.raw_data
    if known is not None and _place(known)[1] == len(raw) and _read(stream, *_place(known)) == raw:
        return known
    stream.seek(0, 2)
    stream.write(bytes(-stream.tell() % ALIGNMENT_BYTES))
    made = type(tensor)(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    refer_to(made, WEIGHTS, stream.tell(), len(raw))
    stream.write(raw)
    return made


def _read(stream: BinaryIO, offset: int, length: int) -> bytes:
    stream.seek(offset)
    return stream.read(length)


def _place(tensor: onnx.TensorProto) -> tuple[int, int]:
    """(offset, length) in the file beside the graph, in bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries.get("offset", 0)), int(entries.get("length", 0))
