"""ONNX operators on ATen: one function for each, registered by name; a file for each kind."""

from __future__ import annotations

from eightfold.compress.onnx.operators import (
    activation,
    arithmetic,
    boxes,
    convolution,
    creation,
    indexing,
    linear,
    logic,
    movement,
    normalization,
    pooling,
    recurrent,
    reduction,
    resize,
)
from eightfold.compress.onnx.operators.base import OPERATORS, Node, Operator, cannot_run

__all__ = [
    "OPERATORS",
    "Node",
    "Operator",
    "activation",
    "arithmetic",
    "boxes",
    "cannot_run",
    "convolution",
    "creation",
    "indexing",
    "linear",
    "logic",
    "movement",
    "normalization",
    "pooling",
    "recurrent",
    "reduction",
    "resize",
]
