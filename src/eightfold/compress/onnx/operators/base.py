"""The node that an operator function sees, and the registry: ONNX operator name -> function on ATen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eightfold.errors import TraceError

Function = Callable[..., Any]
"""(node, *input tensors, None where one is left out) -> a tensor, or a tuple of one for each output."""


@dataclass
class Node:
    """One node's attributes, decoded. `opset` is the version of the operator set that the graph imports."""

    op: str
    name: str
    opset: int
    outputs: int
    attributes: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or the default."""
        return self.attributes.get(name, default)

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number attribute."""
        return int(self.attributes.get(name, default))

    def real(self, name: str, default: float = 0.0) -> float:
        """A floating-point attribute."""
        return float(self.attributes.get(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is 0 or 1, as a truth value."""
        return bool(self.attributes.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        """A text attribute."""
        return str(self.attributes.get(name, default))

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """An attribute of several whole numbers."""
        return [int(value) for value in self.attributes.get(name, default)]

    def refuse(self, what: str) -> TraceError:
        """The error for a form of the operator that is not run."""
        return cannot_run(self.op, self.name, what)


@dataclass(frozen=True)
class Operator:
    """
    Attributes:
        moves: results hold input values unchanged at other places, so that a constant can be followed through it.
        size_inputs: attribute of the step -> input that holds such sizes.
        size_attributes: attribute of the step -> attribute of the node that holds such sizes.
        by_dimension: the attribute whose entry i is the size of the result's dimension i.
    """

    function: Function
    moves: bool = False
    size_inputs: Mapping[str, int] = field(default_factory=dict)
    size_attributes: Mapping[str, str] = field(default_factory=dict)
    by_dimension: str = ""


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, **options: Any) -> Callable[[Function], Function]:
    """Register a function for ONNX operators; the options are the fields of `Operator`."""

    def register(function: Function) -> Function:
        OPERATORS.update({name: Operator(function, **options) for name in names})
        return function

    return register


def cannot_run(op: str, name: str, why: str = "") -> TraceError:
    """The error for an operator that torch cannot run, with its name and its node."""
    reason = f" ({why})" if why else ""
    return TraceError(
        f"the operator {op} of node {name!r} cannot run in torch{reason}",
        allowed=f"{len(OPERATORS)} operators of the standard set; docs/onnx-pruning.md lists them",
        remedy="cut the graph before the node, or prune the module that the file was exported from",
    )


def listed(value: Tensor | None) -> list[int]:
    """The integers of a tensor that holds sizes, axes or places."""
    return [] if value is None else [int(each) for each in value.reshape(-1).tolist()]


def axes_from(node: Node, value: Tensor | None, dims: int) -> list[int]:
    """Axes from an input (newer opsets) or the attribute (older ones), counted from the front."""
    axes = listed(value) if value is not None else node.integers("axes")
    return [axis % dims if dims else 0 for axis in axes]


def number_or_tensor(value: Tensor) -> Tensor | float | int | bool:
    """A single value as a Python number, so that it takes the other operand's width and type."""
    return value.item() if value.numel() == 1 and value.dim() == 0 else value


DTYPES: Mapping[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 14: torch.complex64,
    15: torch.complex128, 16: torch.bfloat16,
}  # fmt: skip
"""ONNX element type -> torch's."""


def dtype_of(node: Node, elem_type: int) -> torch.dtype:
    """The torch type of an ONNX element type."""
    if elem_type not in DTYPES:
        raise node.refuse(f"element type {elem_type}")
    return DTYPES[elem_type]
