"""Watches residual blocks while a network runs: the tensors on x's way through each module, and sums over the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from eightfold.compress.least_squares.moments import Moments
from eightfold.compress.surgery.recoverability import branch_moments
from eightfold.compress.types import Args, Kwargs

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "hardtanh": F.relu6,  # torch runs ReLU6 as hardtanh(0, 6); other limits are not taken for a block
    "leaky_relu": F.leaky_relu,
    "leaky_relu_0.1": lambda x: F.leaky_relu(x, 0.1),  # Darknet's
    "relu": F.relu,
    "silu": F.silu,
}
_ADDITIONS = {"add", "add_"}
_SAME = {"alias", "clone", "detach", "contiguous"}


@dataclass
class BlockRun:
    """Sums over the batch of one run of a block."""

    activation: str
    channel_dim: int
    total: Tensor  # of f, per channel
    count: int  # values summed for each channel
    branch_energy: float
    output_energy: float
    norm_scale: float
    moments: Moments | None
    values: int  # of the output


@dataclass
class _Frame:
    """A module that is running on one tensor, and the tensors on x's way through it."""

    path: str
    x: Tensor
    way: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # id -> the tensor and its activation so far
    branch: Tensor | None = None  # x + f - x at the last addition
    output_energy: float = 0.0
    convolves: bool = False
    norm_scale: float = float("nan")


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
    def __init__(self, model: nn.Module, fit: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._fit = fit
        self.frames: list[_Frame] = []
        self.found: dict[str, BlockRun] = {}
        self._names = {id(module): name for name, module in model.named_modules() if name}

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        on_way = [(frame, _met(frame, args)) for frame in self.frames]
        output = func(*args, **(kwargs or {}))
        for frame, met in on_way:
            if met is not None and isinstance(output, Tensor):
                _follow(frame, name, args, met, output)
            frame.convolves |= name == "convolution"
        return output

    def enter(self, module: nn.Module, args: Args) -> None:
        """Forward pre-hook of every module."""
        path = self._names.get(id(module), "")
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        x = tensors[0] if len(tensors) == 1 else torch.empty(0)
        self.frames.append(_Frame(path, x, {id(x): (x, "")}))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook of every module."""
        frame = self.frames.pop()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
            for outer in self.frames:
                outer.norm_scale = float(module.weight.detach().abs().mean())
        if frame.path and isinstance(output, Tensor) and id(output) in frame.way and frame.branch is not None:
            self.found[frame.path] = _run_of(frame, frame.way[id(output)][1], self._fit)


def _met(frame: _Frame, args: Args) -> str | None:
    """The activation so far of the tensor on x's way that the operator takes; None when it takes none."""
    ways = [frame.way[id(arg)] for arg in args[:2] if isinstance(arg, Tensor) and id(arg) in frame.way]
    return ways[0][1] if ways else None


def _follow(frame: _Frame, name: str, args: Args, activation: str, output: Tensor) -> None:
    """Tracks x through an operator; stops where its output no longer depends on x alone."""
    if name in _ADDITIONS and not activation and output.shape == frame.x.shape and isinstance(args[1], Tensor):
        frame.branch = (output - frame.x).double()
        frame.output_energy = float(output.double().square().sum())
        frame.way[id(output)] = (output, "")
    elif frame.branch is not None and not activation and (followed := _activation(name.removesuffix("_"), args)):
        frame.way[id(output)] = (output, followed)
    elif name in _SAME:
        frame.way[id(output)] = (output, activation)
    else:  # an operator in place has left the way, and taken its tensor along
        frame.way.pop(id(output), None)


def _activation(name: str, args: Args) -> str:
    """The name in ACTIVATIONS of an operator with its arguments; "" where it is none of them."""
    if name == "hardtanh" and list(args[1:3]) != [0, 6]:
        return ""
    slope = args[1] if name == "leaky_relu" and len(args) > 1 else 0.01
    full = name if slope == 0.01 else f"{name}_{slope:g}"
    return full if full in ACTIVATIONS else ""


def _run_of(frame: _Frame, activation: str, fit: bool) -> BlockRun:
    assert frame.branch is not None, "the caller looked"
    channel_dim = -3 if frame.branch.dim() == 4 and frame.convolves else -1
    by_channel = frame.branch.movedim(channel_dim, 0).flatten(1)
    energy = float(by_channel.square().sum())
    return BlockRun(
        activation,
        channel_dim,
        by_channel.sum(1),
        by_channel.shape[1],
        energy,
        frame.output_energy,
        frame.norm_scale,
        branch_moments(frame.x, frame.branch, channel_dim) if fit else None,
        by_channel.numel(),
    )


@contextmanager
def watched(model: nn.Module, fit: bool) -> Iterator[dict[str, BlockRun]]:
    """Collects the runs of blocks by module path while `model` runs inside the `with`; with moments to `fit`."""
    watch = _Watch(model, fit)
    handles = [
        register_module_forward_pre_hook(watch.enter),
        register_module_forward_hook(watch.leave),
    ]
    try:
        with watch:
            yield watch.found
    finally:
        for handle in handles:
            handle.remove()
