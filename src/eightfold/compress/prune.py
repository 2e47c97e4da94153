"""Pruning in one call: plan, surgery, compensation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from eightfold.compress.compensate.compensate import CompensationReport, compensate, require_method
from eightfold.compress.latency.report import LatencyReport
from eightfold.compress.latency.request import report_of, taken_request
from eightfold.compress.modules.batches import batches_of
from eightfold.compress.modules.modules import is_several_calls
from eightfold.compress.plan.costs import macs_cost
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import collector_paused, plan_module
from eightfold.compress.surgery.blocks import bypassed, find_blocks, remove_blocks
from eightfold.compress.surgery.surgery import PruneReport, apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs, ImageBatches
from eightfold.json_types import JsonDict


@dataclass(frozen=True)
class Pruned:
    """Result of `prune`.

    Attributes:
        macs_before, macs_after: multiply-accumulates of convolutions and linear layers for the example inputs.
        channels: coupled channels that could have gone, and those that went.
        latency: of a plan within a latency budget.
    """

    plan: PrunePlan
    surgery: PruneReport
    compensation: CompensationReport
    macs_before: int = 0
    macs_after: int = 0
    channels: tuple[int, int] = (0, 0)
    latency: LatencyReport | None = None

    def costs(self) -> str:
        """MACs before and after, the channels asked for and removed, and the threshold where the rule has one."""
        free, gone = self.channels
        lines = [
            f"MACs {self.macs_before:,} -> {self.macs_after:,} ({self.macs_after / max(self.macs_before, 1):.1%})",
            f"channels removed: {gone} of {free} ({gone / max(free, 1):.1%}); asked for: {self.plan.budget}",
        ]
        if self.plan.threshold is not None:
            lines.append(f"threshold of the scores: {self.plan.threshold:.4g}")
        return "\n".join(lines)

    def describe(self) -> str:
        """Text for a person: the plan, the changed widths, and warnings."""
        limit = self.plan.suggested_limit
        hints = [] if limit is None else [f"suggested limit: {limit:.0%} can go by one threshold, and no layer empties"]
        if not self.surgery.changed:
            hints.append(
                "nothing was pruned: the warnings above, or `eightfold inspect`, tell what keeps each group whole"
            )
        hints += [] if self.latency is None else [self.latency.describe()]
        return "\n".join([self.surgery.describe(), self.costs(), self.compensation.describe(), *hints])


def prune_module(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    compensation: str = "none",
    images: ImageBatches = (),
    memory_mb: int = 224,
    **options: Any,
) -> Pruned:
    """`eightfold.prune` of a torch module, which documents the arguments."""
    require_method(compensation, options.get("layer_norms", False))
    images = images if isinstance(images, Tensor) else list(images)
    with collector_paused():
        norms = options.get("layer_norms", False)
        graph = options.pop("graph", None) or trace(model, example_inputs, layer_norms=norms)
    request = taken_request(options)
    plan = plan_module(model, example_inputs, images=images, graph=graph, latency=request, **options)
    costs = {**_costs(model, example_inputs, graph, plan), "latency": report_of(request)}
    original = copy.deepcopy(model) if compensation != "none" else model
    seen = batches_of(images)
    if plan.removed_blocks and compensation != "none" and seen:
        means = {block.path: block.mean for block in find_blocks(model, seen)}
        remove_blocks(model, plan.removed_blocks, means)
    surgery = apply_plan_to_module(model, plan)
    if compensation == "none":
        return Pruned(plan, surgery, CompensationReport("none", (), ()), **costs)
    if not seen and compensation == "bn_beta":  # which needs a call of the network, whatever the images show
        seen = batches_of(example_inputs if is_several_calls(example_inputs) else [example_inputs])
    compensated = compensate(model, original, plan, seen, method=compensation, memory_mb=memory_mb)
    return Pruned(plan, surgery, compensated, **costs)


def _costs(model: nn.Module, example_inputs: ExampleInputs, graph: ChannelGraph, plan: PrunePlan) -> JsonDict:
    """The numbers that `Pruned` holds, before surgery."""
    left = graph
    if plan.removed_blocks:
        with bypassed(model, plan.removed_blocks), collector_paused():
            left = trace(model, example_inputs, layer_norms=plan.layer_norms)
    return pruning_costs(graph, left, plan)


def pruning_costs(original: ChannelGraph, graph: ChannelGraph, plan: PrunePlan) -> JsonDict:
    """MACs and channels as `Pruned` holds them.

    Args:
        original: of the network before anything goes.
        graph: without the blocks that the plan removes.
    """
    before = sum(layer.macs for layer in original.layers)
    kept = plan.kept
    gone = sum(group.width - len(kept[group.id]) for group in plan.groups)
    return {
        "macs_before": before,
        "macs_after": round(macs_cost(graph)(kept)),
        "channels": (sum(group.width for group in graph.free), gone),
    }
