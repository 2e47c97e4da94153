"""Decomposes operators that torch's exporters refuse or write wrongly, while a module runs.

A rule is called as its operator is. It returns NotImplemented where the exporters know that call, which then stays as
it was: a network without such calls is exported as if there were no rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from eightfold.export.torch.decompositions.attention import scaled_dot_product_attention
from eightfold.export.torch.decompositions.deformable import deform_conv2d
from eightfold.export.torch.decompositions.pools import adaptive_pool, divided_pool, max_along, mean_along
from eightfold.export.torch.decompositions.resize import interpolate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Rule = Callable[..., Any]


class Decomposing(Protocol):
    """`operators`: names of the decomposed ones so far."""

    operators: set[str]


def decomposed() -> AbstractContextManager[Decomposing]:
    """Within it, calls that have a rule are what the rule makes of them."""
    return _mode()()


@functools.cache
def _mode() -> Callable[[], AbstractContextManager[Decomposing]]:
    from torch.overrides import TorchFunctionMode

    class Words(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.operators: set[str] = set()
            self._rules = _rules()

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            name, rule = self._rules.get(func, ("", None))
            made = rule(*args, **(kwargs or {})) if rule else NotImplemented
            if made is NotImplemented:
                return func(*args, **(kwargs or {}))
            self.operators.add(name)
            return made

    return Words


def _rules() -> dict[Any, tuple[str, Rule]]:
    """By what a call is seen as. torchvision's operators are there once a network has imported them."""
    from torch import ops
    from torch.nn import functional

    by_name: dict[str, Rule] = {
        "interpolate": interpolate,
        "scaled_dot_product_attention": scaled_dot_product_attention,
    }
    for axes in (1, 2, 3):
        by_name[f"adaptive_avg_pool{axes}d"] = adaptive_pool(mean_along, axes)
        by_name[f"adaptive_max_pool{axes}d"] = adaptive_pool(max_along, axes)
    for axes in (2, 3):
        by_name[f"avg_pool{axes}d"] = divided_pool(axes)
    found = {getattr(functional, name): (name, rule) for name, rule in by_name.items()}
    if hasattr(ops.torchvision, "deform_conv2d"):
        found[ops.torchvision.deform_conv2d] = ("deform_conv2d", deform_conv2d)
    return found
