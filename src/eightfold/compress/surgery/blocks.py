"""Residual blocks: found by watching a forward pass, ranked by what they contribute, and taken out.

A residual block is a module that maps x to act(x + f(x)) with equal shapes: on its way from input to output, x meets
additions and at most one activation after the last of them. Any code that runs this way is found, whatever its class.

A block that goes leaves a `Bypass`: act(x + shift), whose shift takes the constant that f contributed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eightfold.compress.plan.plan import RemovedBlock
from eightfold.compress.surgery.block_watch import ACTIVATIONS, BlockRun, watched
from eightfold.compress.surgery.recoverability import unexplained_energy
from eightfold.compress.types import Batches
from eightfold.errors import PlanMismatchError, UnknownNameError, UsageError
from eightfold.export.verify.module_runs import evaluating


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


def find_blocks(model: nn.Module, batches: Batches, *, fit: bool = False) -> tuple[Block, ...]:
    """The innermost residual blocks of `model` in execution order, with statistics over `batches`.

    Args:
        batches: positional arguments of one forward call each; real images, if the statistics are to mean anything.
        fit: whether `unexplained` is measured.
    """
    if not batches:
        raise UsageError("residual blocks are found by running the model", allowed="at least one batch of images")
    runs: dict[str, list[BlockRun]] = {}
    with evaluating(model), torch.no_grad():
        for args in batches:
            with watched(model, fit) as seen_runs:
                model(*args)
            for path, seen in seen_runs.items():
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


def require_images_for_blocks(wanted: int | Sequence[str], score: str, batches: Sequence[object]) -> None:
    """Refuse to rank blocks by what they contribute to made-up inputs. Blocks that are named need no rank."""
    if isinstance(wanted, int) and wanted and score == "contribution" and not batches:
        raise UsageError(
            f"{wanted} residual blocks to be removed, and no images to rank them on",
            allowed="images, the paths of the blocks, or a block score of weights: bn_scale",
            remedy="give images (--images), or rank by --block-score bn_scale",
        )


def choose_blocks(
    model: nn.Module, batches: Batches, wanted: int | Sequence[str], score: str = "contribution"
) -> tuple[Block, ...]:
    """The blocks to remove: a number of the least important, or those named."""
    if not wanted:
        return ()
    ranked = rank_blocks(find_blocks(model, batches, fit=score == "recoverability"), score)
    if isinstance(wanted, int) and score == "bn_scale":
        with_norms = tuple(block for block in ranked if math.isfinite(block.norm_scale))
        return chosen_of(with_norms, wanted, kind=" with a batch norm")
    return chosen_of(ranked, wanted)


def chosen_of(ranked: tuple[Block, ...], wanted: int | Sequence[str], *, kind: str = "") -> tuple[Block, ...]:
    """The first of ranked blocks, or those named.

    Raises:
        UsageError: more than there are; `kind` says which count.
        UnknownNameError: no block of that name.
    """
    if isinstance(wanted, int):
        if wanted > len(ranked):
            raise UsageError(
                f"{wanted} of {len(ranked)} residual blocks{kind} to remove", allowed=f"0 to {len(ranked)}"
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


def _block(path: str, runs: Sequence[BlockRun]) -> Block:
    first = runs[0]
    mean = torch.stack([run.total for run in runs]).sum(0) / sum(run.count for run in runs)
    share = sum(run.branch_energy for run in runs) / max(sum(run.output_energy for run in runs), 1e-30)
    moments = [run.moments for run in runs if run.moments is not None]
    output = sum(run.output_energy for run in runs) / max(sum(run.values for run in runs), 1)
    unexplained = unexplained_energy(moments) / max(output, 1e-30) if moments else float("nan")
    return Block(path, first.activation, first.channel_dim, mean, share, first.norm_scale, unexplained)
