"""Channels last while a network trains on a CPU: steps are up to 1.5 times as fast, most with depthwise convolutions
(`benchmarks/results/channels_last.md`).

Networks keep channels first where they normalize each image by itself, which is slower with channels last, and where
their code looks at memory order (`view` on a map), which a forward pass shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from eightfold.compress.train.averaging import restore, snapshot
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch

WITHIN_IMAGES = frozenset({torch.instance_norm, torch.group_norm, F.instance_norm, F.group_norm})


class MemoryLayout:
    """The order in memory of a network that trains, and of its images.

    Attributes:
        channels_last: whether maps have their channels last; decided by `choose`.
    """

    def __init__(self) -> None:
        self.channels_last = False

    def choose(self, model: nn.Module, batch: Batch, devices: Devices, *, training: bool) -> None:
        """Lay weights out with channels last where that is faster and the network can work so.

        Args:
            batch: for a forward pass, after which the model has the values that it had before.
            training: whether the model trains in training mode.
        """
        if devices.processes > 1 or devices.device.type != "cpu" or not _gains(model):
            return
        state = snapshot(model)
        _lay_out(model, torch.channels_last)
        self.channels_last = True
        model.train(training)
        try:
            with torch.no_grad(), devices.autocast(), _Watch() as watch:
                model(*self.of_batch(batch).inputs)
            self.channels_last = not watch.within_images
        except (RuntimeError, ValueError):  # the first step raises it again where the layout is not to blame
            self.channels_last = False
        restore(model, state)
        if not self.channels_last:
            _lay_out(model, torch.contiguous_format)

    def of_batch(self, batch: Batch) -> Batch:
        """The batch with its images in this layout."""
        return Batch(tuple(map(_last, batch.inputs)), batch.target) if self.channels_last else batch

    def of_outputs(self, outputs: Any) -> Any:
        """Outputs with channels first in memory, which losses may take a view of."""
        return _first(outputs) if self.channels_last else outputs

    def release(self, model: nn.Module) -> None:
        """Channels first again, as files and exports have them."""
        if self.channels_last:
            _lay_out(model, torch.contiguous_format)


class _Watch(TorchFunctionMode):
    """Sees whether a forward pass normalizes each image by itself."""

    within_images = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.within_images |= func in WITHIN_IMAGES
        return func(*args, **(kwargs or {}))


def _gains(model: nn.Module) -> bool:
    return any(parameter.dim() == 4 for parameter in model.parameters())


def _lay_out(model: nn.Module, layout: torch.memory_format) -> None:
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _last(value: Any) -> Any:
    is_map = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if is_map else value


def _first(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.contiguous()
    if isinstance(value, dict):
        return type(value)((key, _first(each)) for key, each in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_first, value))
    return type(value)(map(_first, value)) if type(value) in (tuple, list) else value
