"""Tensors inside a network become outputs of its engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from eightfold.errors import BuildError, UnknownNameError
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.tensorrt import DTYPES

if TYPE_CHECKING:
    from tensorrt import INetworkDefinition, ITensor


def mark_outputs(network: INetworkDefinition, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Make tensors outputs; returns what they are. Those that are outputs already stay as they are.

    Raises:
        UnknownNameError: the parser made no tensor of that name.
        BuildError: no runtime could read a tensor of its type or shape.
    """
    known = {tensor.name: tensor for tensor in tensors_of(network)} if names else {}
    made = []
    for name in names:
        if name not in known:
            raise UnknownNameError.of("tensor", name, known)
        made.append(_spec(known[name]))
        network.mark_output(known[name])
    return tuple(made)


def tensors_of(network: INetworkDefinition) -> Iterator[ITensor]:
    """The output tensors of a network's layers."""
    layers = (network.get_layer(place) for place in range(network.num_layers))
    return (layer.get_output(place) for layer in layers for place in range(layer.num_outputs))


def _spec(tensor: ITensor) -> TensorSpec:
    dims: Any = tensor.shape  # types do not know that it is a sequence
    kind, shape = str(tensor.dtype).rpartition(".")[2], tuple(dims)
    if kind not in DTYPES or any(size < 0 for size in shape):
        raise BuildError(f"tensor {tensor.name!r} is {kind} {shape}", allowed=f"fixed sizes, {', '.join(DTYPES)}")
    return TensorSpec.model_validate({"name": tensor.name, "dtype": DTYPES[kind], "shape": shape})
