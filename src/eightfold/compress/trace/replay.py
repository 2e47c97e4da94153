"""Run a pruned model and hold the result of every operator against the trail of the original."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves

from eightfold.compress.trace.fake.fake_run import FakeRun
from eightfold.compress.trace.op_trace import OpTrace, TracedOp
from eightfold.compress.types import Args, Kwargs


def scalar_factors_of(operator: str, args: Args) -> tuple[float, ...]:
    """The floating-point numbers among the arguments of an operator, or the number that becomes a tensor."""
    if operator == "lift_fresh" and isinstance(args[0], torch.Tensor) and args[0].numel() == 1:
        return (float(args[0]),)
    return tuple(value for value in args if type(value) is float)


class Misfit(RuntimeError):
    """An operator of the pruned model differs by more than the channels that are gone."""

    def __init__(self, step: TracedOp, what: str) -> None:
        super().__init__(f"{step.operator} {what}")
        self.step = step


class Replay(FakeRun):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    """Inside `with Follow(...)`, an operator raises `Misfit` when its result holds another number of channels than it
    should, or when it is given another factor.

    Where the model takes another way than in the trace, following ends without complaint.
    """

    def __init__(self, trail: OpTrace, widths: list[int]) -> None:
        """
        Args:
            widths: how many indices of each of `trail.places` stay.
        """
        super().__init__()
        self._steps, self._widths, self._following = iter(trail.steps), widths, True

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self._following:
            self._compare(func.overloadpacket.__name__, args, result)
        return result

    def _compare(self, operator: str, args: Args, result: Any) -> None:
        step = next(self._steps, None)
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if step is None or _plain(step.operator) != _plain(operator) or step.dims != tuple(x.dim() for x in leaves):
            self._following = False
        elif step.factors != (given := scalar_factors_of(operator, args)):
            raise Misfit(step, f"is given {given} instead of {step.factors}")
        elif any(leaves[axis.result].shape[axis.dim] != self._widths[axis.vector] for axis in step.axes):
            raise Misfit(step, f"gives {[tuple(leaf.shape) for leaf in leaves]}")


def _plain(operator: str) -> str:
    """Indexing by a slice that takes everything is recorded as an alias."""
    return "slice" if operator == "alias" else operator
