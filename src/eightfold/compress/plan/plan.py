"""The pruning plan: which coupled channels stay, as data that can be printed, compared, edited and applied elsewhere.

A plan holds everything that surgery needs (tensor names, dimensions, spans), so that it is applied to a freshly built
model without tracing it. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from eightfold.compress.trace.groups import ChannelGraph, Index, Kept, Member, ScaleLink, SizeLink, removed_indices
from eightfold.errors import PlanMismatchError
from eightfold.files import sha256_of_bytes
from eightfold.values import Frozen, Value

Shapes = Mapping[str, tuple[int, ...]]


class GroupPlan(Frozen):
    """The part of a plan about one group of coupled channels."""

    id: str = Field(description="the group's id in the ChannelGraph: a parameter name")
    width: int = Field(ge=1, description="coupled channels in the original architecture")
    kept: tuple[int, ...] = Field(description="coupled channels that stay: ascending, in [0, width), at least one")
    members: tuple[Member, ...] = Field(description="the tensors, dimensions and positions that the group owns")

    @model_validator(mode="after")
    def _check_kept(self) -> Self:
        ordered = sorted(set(self.kept)) == list(self.kept)
        if not self.kept or not ordered or self.kept[0] < 0 or self.kept[-1] >= self.width:
            raise ValueError(f"kept channels must ascend within [0, {self.width}) and not be empty")
        return self


class RemovedBlock(Frozen):
    """A residual block that goes and leaves act(x + shift); see `eightfold.compress.surgery.blocks`."""

    path: str = Field(description="the module's path")
    activation: str = Field(default="", description="what follows the addition: relu, silu, ...; empty for nothing")
    channels: int = Field(ge=1, description="width of the stream, before pruning")
    channel_dim: int = Field(default=-3, description="dimension of the channels, from the end: -3 maps, -1 tokens")


class PrunePlan(Value):
    """The channels that stay in each group, for one architecture."""

    kind: ClassVar[str] = "prune plan"
    error: ClassVar[type[PlanMismatchError]] = PlanMismatchError
    omitted_when_empty: ClassVar[frozenset[str]] = frozenset({"unreached", "scales", "layer_norms"})

    shapes: dict[str, tuple[int, ...]] = Field(
        description="every parameter and buffer of the original architecture, once `removed_blocks` are bypassed"
    )
    source: str = Field(description="digest of `shapes`: the architecture the plan belongs to")
    groups: tuple[GroupPlan, ...] = Field(description="the groups that lose channels; others stay whole")
    sizes: tuple[SizeLink, ...] = Field(default=(), description="module attributes that follow a group's width")
    scales: tuple[ScaleLink, ...] = Field(default=(), description="weights that follow a mean over a group's channels")
    layer_norms: bool = Field(
        default=False, description="whether channels below layer norms may go: the norms' statistics change with them"
    )
    removed_blocks: tuple[RemovedBlock, ...] = Field(default=(), description="residual blocks taken out first")
    multiple: int = Field(default=8, ge=1, description="kept widths are multiples of this")
    rule: str = Field(default="uniform", description="how the scores were turned into kept channels")
    score: str = Field(default="l2", description="the criterion that ranked the channels")
    budget: str = Field(default="", description="what was asked for, in words: 'keep ratio 0.5', 'MACs 1.2 G'")
    suggested_limit: float | None = Field(
        default=None, ge=0, le=1, description="share that one threshold over these scores removes and empties no layer"
    )
    threshold: float | None = Field(
        default=None, description="score above which channels stay, of rules with one for all groups and without budget"
    )
    scores_digest: str = Field(default="", description="SHA-256 of the scores, to tell two plans apart")
    unreached: tuple[str, ...] = Field(
        default=(), description="parameters that the traced calls never used; layers there may read pruned channels"
    )

    @classmethod
    def from_graph(cls, graph: ChannelGraph, kept: Kept, **about: object) -> PrunePlan:
        """The plan that keeps `kept` (group id -> ascending channels); groups it leaves out or keeps whole stay whole.

        `about` fills multiple, rule, score, budget, scores_digest, removed_blocks.
        """
        chosen = [(graph.group(name), channels) for name, channels in kept.items()]
        groups = tuple(
            GroupPlan(id=group.id, width=group.width, kept=tuple(channels.tolist()), members=group.members)
            for group, channels in chosen
            if len(channels) < group.width
        )
        touched = {group.id for group in groups}
        sizes = tuple(link for link in graph.sizes if touched & {name for name, _ in link.parts})
        scales = tuple(link for link in graph.scales if touched & {name for name, _ in link.parts})
        shapes = dict(graph.shapes)
        return cls.model_validate(
            {
                "shapes": shapes,
                "source": architecture_digest(shapes),
                "groups": groups,
                "sizes": sizes,
                "scales": scales,
                "layer_norms": graph.layer_norms,
                "unreached": graph.unreached if groups else (),
                **about,
            }
        )

    @property
    def kept(self) -> Kept:
        """Group id -> kept coupled channels, int64."""
        return {group.id: np.asarray(group.kept, dtype=np.int64) for group in self.groups}

    def without(self, ids: Collection[str]) -> PrunePlan:
        """The plan with the groups `ids` left whole."""
        return self.model_copy(update={"groups": tuple(group for group in self.groups if group.id not in ids)})

    def removed_indices(self) -> Mapping[tuple[str, int], Index]:
        """(tensor, dim) -> positions to remove, ascending int64."""
        kept = self.kept
        return removed_indices((group.members, kept[group.id]) for group in self.groups)

    def pruned_shapes(self) -> Shapes:
        """Shape of every tensor after the plan has been applied."""
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        for (tensor, dim), gone in self.removed_indices().items():
            shapes[tensor][dim] -= len(gone)
        return {name: tuple(shape) for name, shape in shapes.items()}

    def check_fits(self, shapes: Shapes) -> None:
        """Raise PlanMismatchError with the first tensor that differs, and both shapes."""
        raise_first_difference(self.shapes, shapes, what="the plan", remedy="apply it to the model it was made for")

    def describe(self) -> str:
        before, after = (sum(int(np.prod(s)) for s in t.values()) for t in (self.shapes, self.pruned_shapes()))
        head = f"prune plan: {self.rule}, score {self.score}, {self.budget or 'no budget'}, multiple {self.multiple}"
        lines = [f"  {group.id}: {len(group.kept)} of {group.width}" for group in self.groups]
        if self.suggested_limit is not None:
            lines.append(f"  suggested limit: {self.suggested_limit:.0%} can go by one threshold, and no layer empties")
        if self.threshold is not None:
            lines.append(f"  threshold of the scores: {self.threshold:.4g}")
        lines += [f"  block removed: {block.path}" for block in self.removed_blocks]
        lines += [f"  not reached by the trace: {', '.join(self.unreached)}"] if self.unreached else []
        return "\n".join([head, f"  values in tensors: {before} -> {after}", *lines])


def architecture_digest(shapes: Shapes) -> str:
    """SHA-256 of the sorted tensor names and shapes."""
    text = "\n".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items()))
    return sha256_of_bytes(text.encode())


def raise_first_difference(expected: Shapes, seen: Shapes, *, what: str, remedy: str) -> None:
    """Raise PlanMismatchError naming the first tensor, in the order of `seen`, that differs from `expected`."""
    for name, shape in seen.items():
        if name not in expected:
            raise PlanMismatchError(f"tensor {name!r} {tuple(shape)} is not in {what}", remedy=remedy)
        if tuple(shape) != tuple(expected[name]):
            allowed = f"{tuple(expected[name])} as in {what}"
            raise PlanMismatchError(f"tensor {name!r} has shape {tuple(shape)}", allowed=allowed, remedy=remedy)
    for name, shape in expected.items():
        if name not in seen:
            raise PlanMismatchError(f"tensor {name!r} {tuple(shape)} of {what} is missing", remedy=remedy)
