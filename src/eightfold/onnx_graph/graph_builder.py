"""Appends nodes to a graph under names that it does not have yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array
from eightfold.onnx_graph.graph_index import AttributeValue, GraphIndex

if TYPE_CHECKING:
    import onnx


class GraphBuilder:
    """Makes nodes one by one, under names that the graph has not; each call returns what the node computes.

    Args:
        index: of the graph that will hold the nodes, and that gets the constants at once.
        prefix: how all names begin.
    """

    def __init__(self, index: GraphIndex, prefix: str) -> None:
        self.index, self.prefix = index, prefix
        self.nodes: list[onnx.NodeProto] = []
        self._ints: dict[tuple[tuple[int, ...], bytes], str] = {}

    def add(self, op: str, *inputs: str, output: str = "", **attributes: AttributeValue) -> str:
        """A node with one output, which is named `output` if that is given."""
        return self.add_many(1, op, *inputs, output=output, **attributes)[0]

    def add_many(self, count: int, op: str, *inputs: str, output: str = "", **attributes: AttributeValue) -> list[str]:
        """A node with `count` outputs; returns their names."""
        from onnx import helper

        name = self.index.free(f"{self.prefix}/{len(self.nodes)}_{op}")
        outputs = [output] if output else [self.index.free(f"{name}_{place}") for place in range(count)]
        node = helper.make_node(op, list(inputs), outputs, name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        self.nodes.append(node)
        return outputs

    def floats(self, values: float | Array) -> str:
        """A float32 constant; returns its name."""
        return self.weight(np.asarray(values, np.float32))

    def ints(self, values: int | Sequence[int] | Array) -> str:
        """An int64 constant; equal ones are stored once. Returns its name."""
        array = np.asarray(values, np.int64)
        key = (array.shape, array.tobytes())
        if key not in self._ints:
            self._ints[key] = self.weight(array)
        return self._ints[key]

    def reshape(self, tensor: str, *shape: int) -> str:
        """A Reshape to a constant shape; returns its output."""
        return self.add("Reshape", tensor, self.ints(shape))

    def split(self, tensor: str, sizes: Sequence[int], axis: int) -> list[str]:
        """A Split along `axis`; returns its outputs."""
        if len(sizes) == 1:
            return [tensor]
        return self.add_many(len(sizes), "Split", tensor, self.ints(sizes), axis=axis)

    def concat(self, tensors: Sequence[str], axis: int) -> str:
        """A Concat along `axis`; returns its output."""
        return tensors[0] if len(tensors) == 1 else self.add("Concat", *tensors, axis=axis)

    def column(self, tensor: str, axis: int) -> str:
        """A further axis of length 1."""
        return self.add("Unsqueeze", tensor, self.ints([axis]))

    def weight(self, array: Array) -> str:
        """A constant; returns its name."""
        return self.index.set_weight(f"{self.prefix}_constant", array)
