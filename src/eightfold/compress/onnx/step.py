"""One node of a graph as a module. Integers that may be widths are its attributes, so that surgery can change them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from eightfold.compress.onnx.host import LONGEST_FOLLOWED, NOWHERE, Host, Value
from eightfold.compress.onnx.operators import Node, Operator, cannot_run
from eightfold.compress.onnx.operators.base import listed
from eightfold.errors import first_line

# Stands for a size that is computed while the graph runs, and for one that is an attribute of the node.
COMPUTED, OF_THE_NODE = -2, -3
# Their results hold no values of the network, whatever their inputs are.
_OF_SHAPES = ("Shape", "Size")
# Their results hold one value, which a trace has to see: they follow any width.
_FILLED = ("ConstantOfShape",)


class NodeStep(nn.Module):
    """Runs one node.

    Attributes:
        key: the node's first output, by which it is found in the graph.
        reads: names of the inputs, "" where one is left out.
        makes: names of the outputs.
        origins: attribute that holds sizes -> for each entry the code of the constant's entry, or NOWHERE, or
            OF_THE_NODE.
    """

    def __init__(self, node: Node, operator: Operator, key: str, reads: Sequence[str], makes: Sequence[str]) -> None:
        super().__init__()
        self.node, self.operator, self.key = node, operator, key
        self.reads, self.makes = tuple(reads), tuple(makes)
        self.origins: dict[str, list[int]] = {}
        for attribute, name in operator.size_attributes.items():
            if name in node.attributes:
                value = node.attributes[name]
                setattr(self, attribute, [int(v) for v in value] if isinstance(value, list | tuple) else int(value))
                self.origins[attribute] = [OF_THE_NODE] * (len(value) if isinstance(value, list | tuple) else 1)

    @property
    def sizes_by_dimension(self) -> str:
        """The list attribute whose entry i is the size of dimension i of the result; "" for none."""
        return self.operator.by_dimension

    @property
    def code(self) -> str:
        """Nodes share no code with each other."""
        return self.key

    def forward(self, *values: Value) -> tuple[Value, ...]:
        folded = self.node.op in _OF_SHAPES or (
            bool(values) and all(value is None or isinstance(value, Host) for value in values)
        )
        if not folded:
            with _disable_current_modes():
                given = self._with_sizes(list(values))
            return self._run(given)
        if self.node.op in _FILLED:
            return tuple(Host(result) for result in self._run(list(values)))
        # Unseen by a trace, which would take the numbers for factors.
        with _disable_current_modes():
            given = self._with_sizes(list(values))
            results = self._run(given)
            return tuple(Host(*pair) for pair in zip(results, self._origins_of_results(given, results), strict=True))

    def _run(self, given: Sequence[Value]) -> tuple[Tensor, ...]:
        try:
            result = self.operator.function(self.node, *(_tensor(value) for value in given))
        except NotImplementedError as error:
            raise cannot_run(self.node.op, self.node.name, first_line(error)) from error
        return result if isinstance(result, tuple) else (result,)

    def _with_sizes(self, values: list[Value]) -> list[Value]:
        """The inputs, with the sizes that this step holds in the place of the constants."""
        for attribute, name in self.operator.size_attributes.items():
            if name in self.node.attributes:
                self.node.attributes[name] = getattr(self, attribute)
        for attribute, slot in self.operator.size_inputs.items():
            given = values[slot] if slot < len(values) else None
            if isinstance(given, Host) and given.tensor.numel() <= LONGEST_FOLLOWED:
                values[slot] = self._sizes(attribute, given)
        return values

    def _sizes(self, attribute: str, given: Host) -> Host:
        sizes, origins = listed(given.tensor), listed(given.codes())
        held: list[int] | None = getattr(self, attribute, None)
        if held is None or len(held) != len(sizes):
            held = [size if origin != NOWHERE else COMPUTED for size, origin in zip(sizes, origins, strict=True)]
            setattr(self, attribute, held)
            self.origins[attribute] = origins
        own = self.origins[attribute]
        merged = [mine if origin != NOWHERE else size for mine, size, origin in zip(held, sizes, own, strict=True)]
        return Host(torch.tensor(merged, dtype=given.tensor.dtype).reshape(given.tensor.shape), given.origins)

    def _origins_of_results(self, values: Sequence[Value], results: Sequence[Tensor]) -> list[Tensor | None]:
        """Codes moved the way of the values."""
        nothing: list[Tensor | None] = [None] * len(results)
        data = values if self.node.op == "Concat" else values[:1]
        known = [value for value in data if isinstance(value, Host)]
        small = all(value.tensor.numel() <= LONGEST_FOLLOWED for value in known)
        if not self.operator.moves or not small or all(value.origins is None for value in known):
            return nothing
        codes = [value.codes() for value in known]
        if self.node.op == "Cast":  # to bool or to few bits: the codes stay whole
            return [codes[0]]
        rest = [_tensor(value) for value in values[len(data) :]]
        function: Callable[..., Any] = self.operator.function
        moved = function(self.node, *codes, *rest)
        return list(moved) if isinstance(moved, tuple) else [moved]


def _tensor(value: Value) -> Tensor | None:
    return value.tensor if isinstance(value, Host) else value
