"""Residual blocks: found by watching a forward pass, ranked by what they contribute, and taken out.

A residual block is a module that maps x to act(x + f(x)) with equal shapes: on its way from input to output, x meets
additions and at most one activation after the last of them. Any code that runs this way is found, whatever its class.

A block that goes leaves a `Bypass`: act(x + shift), whose shift takes the constant that f contributed.
"""

from __future__ import annotations

import math
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
from eightfold.compress.plan.plan import RemovedBlock
from eightfold.compress.surgery.recoverability import branch_moments, unexplained_energy
from eightfold.compress.types import Args, Kwargs
from eightfold.errors import PlanMismatchError, UnknownNameError, UsageError
from eightfold.export.verify.module_runs import evaluating

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


@dataclass(frozen=True)
class Block:
    """A residual block, and what its branch f contributed over the images seen."""

    path: str
    activation: str
    channel_dim: int  # dimension of the channels, counted from the end: -3 for maps, -1 for tokens
    mean: Tensor  # float64 [channels]: mean of f over images and positions
    share: float  # energy of f relative to the energy of x + f
    norm_scale: float  # mean |scale| of the last batch norm inside; nan without one
    unexplained: float = float("nan")  # energy of f beyond linear maps of x, relative to x + f

    def removed(self) -> RemovedBlock:
        """The record of the block for a plan."""
        return RemovedBlock(
            path=self.path, activation=self.activation, channels=len(self.mean), channel_dim=self.channel_dim
        )


class Bypass(nn.Module):
    """Replaces a removed block: act(x + shift)."""

    def __init__(self, block: RemovedBlock) -> None:
        super().__init__()
        self.activation = block.activation
        self.shift = nn.Parameter(torch.zeros(block.channels, *[1] * (-1 - block.channel_dim)))

    def forward(self, x: Tensor) -> Tensor:
        """act(x + shift)."""
        return ACTIVATIONS[self.activation](x + self.shift)


def find_blocks(model: nn.Module, batches: Sequence[Any], *, fit: bool = False) -> tuple[Block, ...]:
    """The innermost residual blocks of `model` in execution order, with statistics over `batches`.

    Args:
        batches: positional arguments of one forward call each; real images, if the statistics are to mean anything.
        fit: whether `unexplained` is measured.
    """
    if not batches:
        raise UsageError("residual blocks are found by running the model", allowed="at least one batch of images")
    runs: dict[str, list[_Seen]] = {}
    with evaluating(model), torch.no_grad():
        for args in batches:
            with _watching(model, fit) as watch:
                model(*args)
            for path, seen in watch.found.items():
                runs.setdefault(path, []).append(seen)
    inner = [path for path in runs if not any(other.startswith(f"{path}.") for other in runs)]
    return tuple(_block(path, runs[path]) for path in inner)


def rank_blocks(blocks: Sequence[Block], score: str = "contribution") -> tuple[Block, ...]:
    """Least important first.

    Args:
        score: "contribution" (energy of the branch relative to the block's output), or "bn_scale" (mean |gamma| of the
            block's last batch norm, as network slimming ranks shortcuts), or "recoverability" (energy of the branch
            that a linear map of the block's input cannot replace; see `recoverability.py`).
    """
    if score not in _SCORES:
        raise UnknownNameError.of("block score", score, _SCORES)
    if score == "recoverability" and any(block.unexplained != block.unexplained for block in blocks):
        raise UsageError("block score 'recoverability' of an ONNX file", allowed="contribution or bn_scale there")
    return tuple(sorted(blocks, key=_SCORES[score]))


_SCORES: Mapping[str, Callable[[Block], float]] = {
    "contribution": lambda block: block.share,
    "bn_scale": lambda block: block.norm_scale if block.norm_scale == block.norm_scale else float("inf"),
    "recoverability": lambda block: block.unexplained,
}


def require_images_for_blocks(wanted: int | Sequence[str], score: str, batches: Sequence[Any]) -> None:
    """Refuse to rank blocks by what they contribute to made-up inputs. Blocks that are named need no rank."""
    if isinstance(wanted, int) and wanted and score == "contribution" and not batches:
        raise UsageError(
            f"{wanted} residual blocks to be removed, and no images to rank them on",
            allowed="images, the paths of the blocks, or a block score of weights: bn_scale",
            remedy="give images (--images), or rank by --block-score bn_scale",
        )


def choose_blocks(
    model: nn.Module, batches: Sequence[Any], wanted: int | Sequence[str], score: str = "contribution"
) -> tuple[Block, ...]:
    """The blocks to remove: so many of the least important, or those named."""
    if not wanted:
        return ()
    ranked = rank_blocks(find_blocks(model, batches, fit=score == "recoverability"), score)
    if isinstance(wanted, int):
        if score == "bn_scale":
            ranked = tuple(block for block in ranked if math.isfinite(block.norm_scale))
        if wanted > len(ranked):
            kind = " with a batch norm" if score == "bn_scale" else ""
            raise UsageError(
                f"{wanted} of {len(ranked)} residual blocks{kind} were to go", allowed=f"0 to {len(ranked)}"
            )
        return ranked[:wanted]
    by_path = {block.path: block for block in ranked}
    for path in wanted:
        if path not in by_path:
            raise UnknownNameError.of("residual block", path, by_path)
    return tuple(by_path[path] for path in wanted)


@contextmanager
def bypassed(model: nn.Module, blocks: Sequence[RemovedBlock]) -> Iterator[nn.Module]:
    """`model` without the blocks inside the `with`, and as it was afterwards."""
    owners = [(*_owner(model, block.path),) for block in blocks]
    before = [(owner, name, getattr(owner, name)) for owner, name in owners]
    try:
        remove_blocks(model, blocks)
        yield model
    finally:
        for owner, name, module in before:
            setattr(owner, name, module)


def remove_blocks(model: nn.Module, blocks: Sequence[RemovedBlock], shifts: Mapping[str, Tensor] | None = None) -> None:
    """Put a `Bypass` in place of each block, in place; blocks already bypassed are left alone.

    Args:
        shifts: path -> the constant [channels] that the branch contributed; zero where none is given.

    Raises:
        PlanMismatchError: the model has no module of that name.
    """
    for block in blocks:
        parent, name = _owner(model, block.path)
        if isinstance(getattr(parent, name), Bypass):
            continue
        bypass = Bypass(block).train(getattr(parent, name).training)
        reference = next(model.parameters(), None)
        bypass = bypass if reference is None else bypass.to(reference.device, reference.dtype)
        if shifts and block.path in shifts:
            bypass.shift.data.copy_(shifts[block.path].reshape(bypass.shift.shape))
        setattr(parent, name, bypass)


def _owner(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    parent, _, name = path.rpartition(".")
    try:
        owner = model.get_submodule(parent)
        owner.get_submodule(name)
    except AttributeError:
        raise PlanMismatchError(
            f"the model has no module {path!r}, which the plan removes", remedy="apply it to the model it was made for"
        ) from None
    return owner, name


@dataclass
class _Seen:
    """One run of a block: sums over the batch."""

    activation: str
    channel_dim: int
    total: Tensor  # of f, per channel
    count: int  # values summed for each channel
    branch_energy: float
    output_energy: float
    norm_scale: float
    moments: Moments | None
    values: int  # of the output


def _block(path: str, runs: Sequence[_Seen]) -> Block:
    first = runs[0]
    mean = torch.stack([run.total for run in runs]).sum(0) / sum(run.count for run in runs)
    share = sum(run.branch_energy for run in runs) / max(sum(run.output_energy for run in runs), 1e-30)
    moments = [run.moments for run in runs if run.moments is not None]
    output = sum(run.output_energy for run in runs) / max(sum(run.values for run in runs), 1)
    unexplained = unexplained_energy(moments) / max(output, 1e-30) if moments else float("nan")
    return Block(path, first.activation, first.channel_dim, mean, share, first.norm_scale, unexplained)


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
        self.found: dict[str, _Seen] = {}
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
            self.found[frame.path] = _seen(frame, frame.way[id(output)][1], self._fit)


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


def _seen(frame: _Frame, activation: str, fit: bool) -> _Seen:
    assert frame.branch is not None, "the caller looked"
    channel_dim = -3 if frame.branch.dim() == 4 and frame.convolves else -1
    by_channel = frame.branch.movedim(channel_dim, 0).flatten(1)
    energy = float(by_channel.square().sum())
    return _Seen(
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
def _watching(model: nn.Module, fit: bool) -> Iterator[_Watch]:
    watch = _Watch(model, fit)
    handles = [
        register_module_forward_pre_hook(watch.enter),
        register_module_forward_hook(watch.leave),
    ]
    try:
        with watch:
            yield watch
    finally:
        for handle in handles:
            handle.remove()
