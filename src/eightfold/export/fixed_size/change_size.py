"""Changes the image size that an ONNX file is fixed at, where nothing but the input's numbers fixes it.

Constants inside a graph may hold the old size: in a Reshape, a Resize, a Slice, a pool as large as its map. Some of
them fail at another size, others give an answer of the wrong meaning, so they are looked for, not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError
from eightfold.export.simplify.constants import computed_constants, stated_constants
from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.export.verify.verify import runner, with_outputs
from eightfold.onnx_graph.graph_index import GraphIndex, attribute
from eightfold.onnx_graph.onnx_files import input_specs
from eightfold.onnx_graph.shape_inference import inferred_shapes

if TYPE_CHECKING:
    import onnx

POOLS = ("AveragePool", "MaxPool", "LpPool")


@dataclass(frozen=True)
class Sizes:
    """The values that a graph computes from the size of its images."""

    shapes: Mapping[str, tuple[int, ...]]  # of every tensor that is known; 0 stands for an axis that is not
    numbers: Arrays  # constants that nodes compute, such as the target of a Reshape

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Sizes:
        """Raises ModelError where the graph does not work out at the size of its inputs."""
        values = [*model.graph.input, *inferred_shapes(model)]
        shapes = {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
        names = computed_constants(model.graph)
        if not names:
            return cls(shapes, {})
        watched = type(model)()
        watched.CopyFrom(model)
        found = runner(with_outputs(watched, names))(random_inputs_of(input_specs(model)))
        return cls(shapes, {name: found[name] for name in names})


def require_size_follows(model: onnx.ModelProto, before: Sizes) -> None:
    """Raise ModelError where a constant of the graph holds the image size of before.

    Args:
        model: the graph with the new size stated for its inputs, and no shapes in between.
        before: `Sizes` of the graph at the old size.
    """
    try:
        after = Sizes.of(model)
    except ModelError as error:
        raise _refusal(f"it does not run at another one: {error.seen}") from None
    index = GraphIndex(model.graph)
    for node in model.graph.node:
        fixes = _CHECKS.get(node.op_type)
        if fixes is not None and node.input and fixes(Change(node, index, before, after)):
            raise _refusal(f"{node.op_type} {node.name or node.output[0]!r} holds it as a constant")


def _refusal(why: str) -> ModelError:
    return ModelError(
        f"the image size is fixed inside of the graph: {why}",
        allowed="graphs in which only the input states the size",
        remedy="export the network again at that size",
    )


@dataclass(frozen=True)
class Change:
    """A node, and what it reads at both sizes."""

    node: onnx.NodeProto
    index: GraphIndex
    old: Sizes
    new: Sizes

    @property
    def before(self) -> tuple[int, ...]:
        """The old shape of the first input."""
        return self.old.shapes.get(self.node.input[0], ())

    @property
    def moved(self) -> set[int]:
        """Axes that have another length now."""
        after = self.new.shapes.get(self.node.input[0], ())
        if len(self.before) != len(after):
            return set()
        return {axis for axis, (old, new) in enumerate(zip(self.before, after, strict=True)) if old != new}

    def numbers(self, place: int) -> list[int | None]:
        """The whole numbers at an input of the node; None for one that follows the image size."""
        name = self.node.input[place] if len(self.node.input) > place else ""
        stated = self._stated(name)
        old, new = (stated, stated) if stated is not None else (self.old.numbers.get(name), self.new.numbers.get(name))
        if old is None or new is None or old.shape != new.shape or old.dtype.kind not in "iu":
            return []
        return [int(a) if a == b else None for a, b in zip(old.ravel(), new.ravel(), strict=True)]

    def _stated(self, name: str) -> Array | None:
        """The value of a weight or of a Constant node."""
        from onnx import numpy_helper

        node = self.index.producer.get(name)
        tensors = stated_constants(node) if node is not None else ()
        return next((numpy_helper.to_array(tensor) for tensor in tensors), self.index.array(name))

    def lengths_that_moved(self) -> set[int]:
        """Old lengths that no axis has any more, and products of neighbours."""
        old = [self.before[axis] for axis in sorted(self.moved)]
        spans = [(first, last) for first in range(len(old)) for last in range(first + 1, len(old) + 1)]
        kept = {length for axis, length in enumerate(self.before) if axis not in self.moved}
        return {int(np.prod(old[first:last])) for first, last in spans} - kept - {1}


def _target_of_reshape(change: Change) -> bool:
    """Numbers of a target shape that are old lengths, or multiples of the old map's area (behind a flattening)."""
    area = int(np.prod([change.before[axis] for axis in change.moved]))
    old = change.lengths_that_moved()
    return any(
        number in old or (area > 1 and number % area == 0) for number in change.numbers(1) if number and number > 1
    )


def _sizes_of_resize(change: Change) -> bool:
    numbers = change.numbers(3)
    return any(len(numbers) > axis and numbers[axis] is not None for axis in change.moved)


def _ends_of_slice(change: Change) -> bool:
    """An end within the old map, of a slice that does not take single rows."""
    axes = [axis for axis in change.numbers(3) if axis is not None] or list(range(len(change.before)))
    for axis, start, end in zip(axes, change.numbers(1), change.numbers(2), strict=False):
        place = axis % max(len(change.before), 1)
        if place in change.moved and end is not None and 1 < end <= change.before[place] and (start or 0) + 1 < end:
            return True
    return False


def _kernel_of_pool(change: Change) -> bool:
    kernel: Sequence[int] = attribute(change.node, "kernel_shape", ())
    return bool(change.moved) and list(kernel) == list(change.before[2:]) and max(kernel, default=1) > 1


def _lengths_of_split(change: Change) -> bool:
    axis = int(attribute(change.node, "axis", 0)) % max(len(change.before), 1)
    stated = any(number is not None for number in change.numbers(1)) or bool(attribute(change.node, "split", ()))
    return axis in change.moved and stated


def _lengths_of_expand(change: Change) -> bool:
    return any(number in change.lengths_that_moved() for number in change.numbers(1))


_CHECKS: Mapping[str, Callable[[Change], bool]] = {
    "Reshape": _target_of_reshape,
    "Resize": _sizes_of_resize,
    "Slice": _ends_of_slice,
    "Split": _lengths_of_split,
    "Expand": _lengths_of_expand,
    **dict.fromkeys(POOLS, _kernel_of_pool),
}
