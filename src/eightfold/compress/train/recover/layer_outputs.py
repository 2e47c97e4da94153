"""Records what convolutions and linear layers put out during a forward pass, whatever code calls them.

Layers are known by their weight, so that functional calls and graph interpreters are seen as modules are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = frozenset(
    {
        torch.convolution,
        functional.conv1d,
        functional.conv2d,
        functional.conv3d,
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    }
)
LAYERS = CONVOLUTIONS | {functional.linear}


class LayerOutputs(TorchFunctionMode):
    """Inside the context, outputs of the layers of `model` whose weights are named.

    Attributes:
        found: weight name -> outputs, one for each call, with channels in dimension 1.
    """

    def __init__(self, model: nn.Module, weights: Collection[str]) -> None:
        super().__init__()
        tensors = {**dict(model.named_buffers()), **dict(model.named_parameters())}
        self._names = {id(tensors[name]): name for name in weights if name in tensors}
        self.found: dict[str, list[Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in LAYERS:
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            name = self._names.get(id(weight))
            if name is not None:
                self.found.setdefault(name, []).append(_channels_second(func, output))
        return output


def _channels_second(func: Callable[..., Any], output: Tensor) -> Tensor:
    if func is functional.linear and output.dim() > 2:
        return output.movedim(-1, 1)
    return output
