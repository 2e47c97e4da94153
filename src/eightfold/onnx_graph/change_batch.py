"""Changes the batch of a graph: derives it from two other batches, or frees the shapes that state it.

Exporting and simplifying every batch anew is slow, and rewriting one file by rules about operators misses constants
that the batch went into. Two files show where the batch is: whatever differs between them depends on it, and has to
do so linearly (every size that one meets does: rows, rows times windows, rows times heads). What does not fit that
is refused here and exported anew by the caller; what fits is still compared with single images afterwards.

Where there is one file only, the shapes that state its batch are freed (`loosen_batch`), and the caller
compares the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Array
from eightfold.errors import ModelError
from eightfold.onnx_graph.constant_values import constant_value
from eightfold.onnx_graph.graph_index import GraphIndex, keep
from eightfold.onnx_graph.names import reads_of
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


@dataclasses.dataclass(frozen=True)
class Line:
    """The straight line through two values at two batches, read off at a third."""

    low: int
    high: int
    batch: int

    def at(self, low: int, high: int) -> int:
        """The value at `batch`. Raises ModelError if it is no whole number."""
        steps = (high - low) * (self.batch - self.low)
        if steps % (self.high - self.low):
            raise ModelError(f"a size goes from {low} to {high} with the batch from {self.low} to {self.high}")
        return low + steps // (self.high - self.low)


def rebatched(low: onnx.ModelProto, high: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The network at `batch`, given the same network exported the same way at two other batches.

    Args:
        low, high: fixed-size graphs whose first inputs have different batches.
        batch: the batch wanted, at least 1.

    Raises:
        ModelError: the two graphs differ in more than sizes.
    """
    from onnx import ModelProto

    line = Line(_batch_of(low), _batch_of(high), batch)
    if line.low == line.high:
        raise ModelError(f"both graphs have batch {line.low}", allowed="two batches")
    made = ModelProto()
    made.CopyFrom(low)
    _rebatch_values(made.graph.input, high.graph.input, line)
    _rebatch_values(made.graph.output, high.graph.output, line)
    del made.graph.value_info[:]  # sizes of what is in between, inferred again where they are needed
    weights = _Weights(low.graph.initializer, high.graph.initializer, line)
    _rebatch_nodes(made.graph.node, high.graph.node, weights, line)
    del made.graph.initializer[:]
    made.graph.initializer.extend(weights.made.values())
    return made


def loosen_batch(model: onnx.ModelProto, batch: int, operators: Collection[str] = ("Reshape",)) -> None:
    """Free the first entry of the shapes that begin with `batch`, or of a Reshape with a multiple of it, in place.

    Args:
        model: the graph of one batch; `Reshape` and the like take their shape as second input. It may be computed, as
            long as constants alone decide on it.
        batch: the one that the shapes state; nothing is done below 1, which means a dynamic one.
        operators: the nodes to look at.
    """
    if batch < 1:
        return
    index = GraphIndex(model.graph)
    for node in model.graph.node:
        stated = kind(node) in operators and len(node.input) > 1
        shape = constant_value(model, index, node.input[1]) if stated else None
        if shape is None or shape.ndim != 1 or not len(shape):
            continue
        # One length may be left open, which is at `batch` what it was; else the first is that of what comes in.
        whole = kind(node) == "Reshape" and shape.min() > 0 and shape[0] % batch == 0
        if shape[0] == batch or whole:
            loose = np.concatenate([[0 if -1 in shape else -1], shape[1:]]).astype(np.int64)
            node.input[1] = index.set_weight(f"{node.output[0]}_shape", loose)
    read = {name for node in model.graph.node for name in reads_of(node)} | index.outputs
    keep(model.graph.initializer, lambda tensor: tensor.name in read or tensor.name not in index.readers)


class _Weights:
    """The constants of the new graph. Which constants share one tensor depends on their values, hence on the batch:
    they are paired by the place where they are used, not by name."""

    def __init__(self, low: Sequence[onnx.TensorProto], high: Sequence[onnx.TensorProto], line: Line) -> None:
        self.low = {tensor.name: tensor for tensor in low}
        self.high = {tensor.name: tensor for tensor in high}
        self.line = line
        self.made: dict[str, onnx.TensorProto] = {}
        self._name_of: dict[tuple[str, str], str] = {}

    def pair(self, name: str, other: str) -> str:
        """The name in the new graph of what is `name` at the low batch and `other` at the high one."""
        if (name in self.low) != (other in self.high) or (name not in self.low and name != other):
            raise ModelError(f"the graphs at two batches differ in more than sizes (at {name!r} and {other!r})")
        if name not in self.low:
            return name
        if (name, other) not in self._name_of:
            fresh = name if name not in self.made else f"{name}_at_{other}"
            tensor = _rebatch_tensor(self.low[name], self.high[other], self.line)
            tensor.name = fresh
            self.made[fresh] = tensor
            self._name_of[name, other] = fresh
        return self._name_of[name, other]


def _batch_of(model: onnx.ModelProto) -> int:
    weights = {tensor.name for tensor in model.graph.initializer}
    first = next(value for value in model.graph.input if value.name not in weights)
    return int(first.type.tensor_type.shape.dim[0].dim_value)


def _rebatch_values(values: Sequence[onnx.ValueInfoProto], others: Sequence[onnx.ValueInfoProto], line: Line) -> None:
    _require_equal([value.name for value in values], [value.name for value in others])
    for value, other in zip(values, others, strict=True):
        dims, other_dims = value.type.tensor_type.shape.dim, other.type.tensor_type.shape.dim
        _require_equal([len(dims)], [len(other_dims)])
        for dim, other_dim in zip(dims, other_dims, strict=True):
            dim.dim_value = line.at(dim.dim_value, other_dim.dim_value)


def _rebatch_nodes(
    nodes: Sequence[onnx.NodeProto], others: Sequence[onnx.NodeProto], weights: _Weights, line: Line
) -> None:
    _require_equal([_form_of(node) for node in nodes], [_form_of(node) for node in others])
    for node, other in zip(nodes, others, strict=True):
        node.input[:] = [weights.pair(name, twin) for name, twin in zip(node.input, other.input, strict=True)]
        for attribute, other_attribute in zip(node.attribute, other.attribute, strict=True):
            if attribute != other_attribute:
                _rebatch_attribute(attribute, other_attribute, line)


def _form_of(node: onnx.NodeProto) -> tuple[Any, ...]:
    """The properties that a node must share in both graphs."""
    attributes = tuple((attribute.name, attribute.type) for attribute in node.attribute)
    return node.domain, node.op_type, len(node.input), tuple(node.output), attributes


def _rebatch_attribute(attribute: onnx.AttributeProto, other: onnx.AttributeProto, line: Line) -> None:
    from onnx import AttributeProto

    if attribute.type == AttributeProto.INT:
        attribute.i = line.at(attribute.i, other.i)
    elif attribute.type == AttributeProto.INTS and len(attribute.ints) == len(other.ints):
        attribute.ints[:] = [line.at(a, b) for a, b in zip(attribute.ints, other.ints, strict=True)]
    elif attribute.type == AttributeProto.TENSOR:
        attribute.t.CopyFrom(_rebatch_tensor(attribute.t, other.t, line))
    else:
        raise ModelError(f"attribute {attribute.name!r} differs between the batches")


def _rebatch_tensor(tensor: onnx.TensorProto, other: onnx.TensorProto, line: Line) -> onnx.TensorProto:
    from onnx import numpy_helper

    if (
        tensor.raw_data
        and tensor.raw_data == other.raw_data
        and tensor.dims == other.dims
        and tensor.data_type == other.data_type
    ):
        return _copy(tensor)
    low, high = numpy_helper.to_array(tensor), numpy_helper.to_array(other)
    if low.dtype != high.dtype or low.ndim != high.ndim:
        raise ModelError(f"constant {tensor.name!r} differs between the batches in more than its size")
    if low.shape == high.shape:
        return numpy_helper.from_array(_interpolated(tensor.name, low, high, line), tensor.name)
    return numpy_helper.from_array(_resized(tensor.name, low, high, line), tensor.name)


def _copy(tensor: onnx.TensorProto) -> onnx.TensorProto:
    from onnx import TensorProto

    made = TensorProto()
    made.CopyFrom(tensor)
    return made


def _interpolated(name: str, low: Array, high: Array, line: Line) -> Array:
    """Sizes stand in integer constants; a float constant has no reason to depend on the batch."""
    if low.dtype.kind not in "iu":
        if np.array_equal(low, high):
            return low
        raise ModelError(f"constant {name!r} depends on the batch")
    flat = [line.at(int(a), int(b)) for a, b in zip(low.ravel(), high.ravel(), strict=True)]
    return np.array(flat, low.dtype).reshape(low.shape)


def _resized(name: str, low: Array, high: Array, line: Line) -> Array:
    """A constant that was expanded along an axis (a class token, a mask): the same slice at every place."""
    shape = [line.at(a, b) for a, b in zip(low.shape, high.shape, strict=True)]
    slices = tuple(slice(0, 1) if a != b else slice(None) for a, b in zip(low.shape, high.shape, strict=True))
    slice_ = low[slices]
    if not (np.array_equal(low, np.broadcast_to(slice_, low.shape)) and _same(slice_, high)):
        raise ModelError(f"constant {name!r} differs between the batches in more than its size")
    return np.ascontiguousarray(np.broadcast_to(slice_, shape))


def _same(slice_: Array, whole: Array) -> bool:
    return np.array_equal(np.broadcast_to(slice_, whole.shape), whole)


def _require_equal(seen: Iterable[Any], other: Iterable[Any]) -> None:
    if list(seen) != list(other):
        raise ModelError("the graphs at two batches differ in more than sizes")
