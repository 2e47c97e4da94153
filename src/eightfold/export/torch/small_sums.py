"""Finds sums with a constant so small that the rewriter of torch's newer exporter takes it for zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# onnxscript compares constants with this absolute tolerance (rewriter/_pattern_ir.py).
TAKEN_FOR_ZERO = 1e-8


def adds_small_constants(model: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> bool:
    """True if the model adds or subtracts such a constant, as norms do against a division by zero."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
        found: bool = False

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            if func.overloadpacket.__name__.rstrip("_") in ("add", "sub"):
                self.found |= any(_small(value) for value in args)
            return func(*args, **(kwargs or {}))

    watch = Watch()  # type: ignore[no-untyped-call]  # as above
    with torch.no_grad(), watch:
        model(*inputs)
    return watch.found


def _small(value: Any) -> bool:
    if not isinstance(value, float | int):
        single = getattr(value, "numel", lambda: 0)() == 1 and value.dim() == 0
        value = float(value) if single and value.is_floating_point() else 0.0
    return 0 < abs(float(value)) <= TAKEN_FOR_ZERO
