"""Label rules of ATen operators. One rule per operator or family of operators, never per model.

A rule receives a finished `Call` and either gives labels to its outputs, unites labels, or freezes them. An operator
without a rule freezes every label that reaches it. `RULES` is filled by the modules of this package.
"""

from eightfold.compress.trace.rules import (
    attention,
    cutting,
    elementwise,
    indexing,
    layers,
    means,
    movement,
    norms,
    recurrent,
    reduction,
    reshaping,
    vision,
)
from eightfold.compress.trace.rules.base import RULES, Call

__all__ = [
    "RULES",
    "Call",
    "attention",
    "cutting",
    "elementwise",
    "indexing",
    "layers",
    "means",
    "movement",
    "norms",
    "recurrent",
    "reduction",
    "reshaping",
    "vision",
]
