"""The constants of a graph as tensors: initializers and Constant nodes, and the part that each plays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import DTYPES
from eightfold.errors import ModelError
from eightfold.onnx_graph.external_data import load_external_tensor
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.onnx_references import require_weights
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Operator -> inputs that are trained: weights, biases, scales and shifts.
_TRAINED: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "DeformConv": (1, 3), "Gemm": (1, 2), "MatMul": (0, 1),
    "BatchNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2), "RMSNormalization": (1,), "PRelu": (1,), "LSTM": (1, 2, 3), "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}  # fmt: skip
# Operator -> inputs of few numbers that say how it works: these are read on the host.
_SETTINGS: Mapping[str, tuple[int, ...]] = {
    "Resize": (1, 2, 3), "Upsample": (1,), "Clip": (1, 2), "Pad": (1, 2, 3), "Range": (0, 1, 2), "OneHot": (1, 2),
    "NonMaxSuppression": (2, 3, 4), "Dropout": (1, 2),
}  # fmt: skip


def constant_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Name and tensor of each initializer and each Constant node, those of inner graphs included."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if kind(node) == "Constant":
            yield node.output[0], _of_node(node)
        for inner in inner_graphs(node):
            yield from constant_tensors(inner)


def _of_node(node: onnx.NodeProto) -> onnx.TensorProto:
    from onnx import helper, numpy_helper

    for attribute in node.attribute:
        if attribute.name == "value":
            held: onnx.TensorProto = attribute.t
            return held
        value = helper.get_attribute_value(attribute)
        if attribute.name in ("value_int", "value_ints"):
            return numpy_helper.from_array(np.asarray(value, dtype=np.int64))
        if attribute.name in ("value_float", "value_floats"):
            return numpy_helper.from_array(np.asarray(value, dtype=np.float32))
    raise ModelError(
        f"the Constant node {node.name or node.output[0]!r} holds no tensor of numbers", allowed="tensors and numbers"
    )


def as_tensor(tensor: onnx.TensorProto, folder: Path) -> Tensor:
    """A copy of the content, read from a file beside the graph where it lies there.

    Raises:
        ModelError: of strings, or of numbers that torch has not; its file is missing.
    """
    from onnx import TensorProto, numpy_helper

    if tensor.data_type not in DTYPES:
        name = TensorProto.DataType.Name(tensor.data_type)
        raise ModelError(
            f"the constant {tensor.name!r} holds {name.lower()}", allowed="numbers of 8 bits or more, and bool"
        )
    array = numpy_helper.to_array(_loaded(tensor, folder))
    if tensor.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).reshape(tuple(tensor.dims))
    return torch.from_numpy(np.array(array)).reshape(tuple(tensor.dims))


def as_proto(tensor: Tensor, name: str) -> onnx.TensorProto:
    """The tensor under a name, as an initializer."""
    from onnx import TensorProto, numpy_helper

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        raw = tensor.view(torch.int16).numpy().tobytes()
        return TensorProto(name=name, dims=tensor.shape, data_type=TensorProto.BFLOAT16, raw_data=raw)
    return numpy_helper.from_array(tensor.numpy(), name)


def _loaded(tensor: onnx.TensorProto, folder: Path) -> onnx.TensorProto:
    from onnx import TensorProto

    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    copied = TensorProto()
    copied.CopyFrom(tensor)
    try:
        load_external_tensor(copied, folder)
    except OSError as error:
        raise ModelError(
            f"the weight {tensor.name!r} cannot be read from the file that the graph names ({error.strerror})",
            allowed="an ONNX model with its weights",
            remedy="copy them beside it",
        ) from None
    return copied


def require_external(path: Path) -> None:
    """Raise ModelError where a file of weights is missing."""
    require_weights(path)


Uses = Mapping[str, list[tuple[str, int]]]
"""Constant -> operator and input of every node that reads it."""


def uses_of(graph: onnx.GraphProto) -> dict[str, list[tuple[str, int]]]:
    """Nodes that read each tensor, by its name."""
    found: dict[str, list[tuple[str, int]]] = {}

    def collect(each: onnx.GraphProto) -> None:
        for node in each.node:
            for place, name in enumerate(node.input):
                found.setdefault(name, []).append((node.op_type, place))
            for inner in inner_graphs(node):
                collect(inner)

    collect(graph)
    return found


def is_host(tensor: onnx.TensorProto, uses: list[tuple[str, int]]) -> bool:
    """True if a constant is a setting or a single number, and no tensor of the network."""
    from onnx import TensorProto

    floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if not floating:
        return True
    trained = any(place in _TRAINED.get(op, ()) for op, place in uses)
    if not trained and int(np.prod(tensor.dims)) <= 1:
        return True
    return bool(uses) and all(place in _SETTINGS.get(op, ()) for op, place in uses)


def is_trained(dims: list[int], uses: list[tuple[str, int]], widths: set[int]) -> bool:
    """True if a floating-point constant is a parameter, and no statistic, grid or preprocessing.

    Args:
        widths: of all layers: a vector that is added or multiplied is a bias or a scale only where it has one.
    """
    if any(place in _TRAINED.get(op, ()) for op, place in uses):
        return True
    long = [size for size in dims if size > 1]
    vector = len(long) == 1 and long[0] in widths
    return vector and any(op in ("Add", "Mul") for op, _ in uses)


def layer_widths(tensors: Mapping[str, onnx.TensorProto], uses: Uses) -> set[int]:
    """Every size of dimensions of weights of convolutions and products."""
    layers = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    found: set[int] = set()
    for name, tensor in tensors.items():
        if len(tensor.dims) > 1 and any(op in layers and place < 2 for op, place in uses.get(name, [])):
            found.update(tensor.dims)
    return found
