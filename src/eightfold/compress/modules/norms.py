"""Finds the batch norm that is the only reader of a layer's output: its running mean can take an offset of that
layer."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eightfold.compress.types import Args, Kwargs

aten = torch.ops.aten
_BATCH_NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
}
_RUNNING_MEAN = 3  # its position among the arguments of all of them


def running_means_behind(model: nn.Module, args: Args) -> Mapping[str, str]:
    """Weight of a convolution -> running mean of the batch norm that alone takes its output, in every call of it.

    Runs `model(*args)` once, in the mode it is in.
    """
    watch = _Watch(model)
    with torch.no_grad(), watch:
        model(*args)
    return {weight: means.pop() for weight, means in watch.takers().items() if len(means) == 1 and "" not in means}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
        self._calls: list[tuple[str, list[str]]] = []  # weight, and who takes this call's output
        # By id, which the next tensor may get once the output is gone: the weak reference tells them apart.
        self._made: dict[int, tuple[weakref.ref[Tensor], list[str]]] = {}

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        norm = func.overloadpacket.__name__ in _BATCH_NORMS
        for leaf in tree_leaves(args):
            reference, takers = self._made.get(id(leaf), (None, []))
            if reference is not None and reference() is leaf:
                takers.append(self._names.get(id(args[_RUNNING_MEAN]), "") if norm else "")
        output = func(*args, **(kwargs or {}))
        if func is aten.convolution.default and id(args[1]) in self._names:
            takers = []
            self._calls.append((self._names[id(args[1])], takers))
            self._made[id(output)] = (weakref.ref(output), takers)
        return output

    def takers(self) -> dict[str, set[str]]:
        """Weight -> running means that take its output; "" stands for anything else, or for nobody."""
        found: dict[str, set[str]] = {}
        for weight, means in self._calls:
            found.setdefault(weight, set()).update(means if len(means) == 1 else [""])
        return found
