"""Planning and pruning of ONNX files: the result is the user's own graph with smaller initializers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.compress.compensate.compensate import CompensationReport, compensate, require_method
from eightfold.compress.inspection import ModelInspection, frozen_by, inspect_module
from eightfold.compress.latency.report import LatencyReport
from eightfold.compress.latency.request import report_of, taken_request
from eightfold.compress.latency.rule import AUTO
from eightfold.compress.onnx.artifacts import require_file_output, save_pruned_file
from eightfold.compress.onnx.file_images import Images, batches_for
from eightfold.compress.onnx.fixed_writer import writer_of
from eightfold.compress.onnx.graph_file import OnnxGraph, open_onnx
from eightfold.compress.onnx.inputs import example_inputs, output_shapes
from eightfold.compress.onnx.residual_blocks import choose_graph_blocks, without_blocks
from eightfold.compress.plan.budget import budgets_of
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import collector_paused, plan_module
from eightfold.compress.prune import Pruned, pruning_costs
from eightfold.compress.surgery.blocks import Block
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import Batches, ExampleInputs
from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.files import PathLike
from eightfold.json_types import JsonMapping

if TYPE_CHECKING:
    from torch import nn

    from eightfold.calib.images.preprocess import Preprocess

# Batch norms are folded in most files, or have names that do not tell what belongs together.
COMPENSATIONS = ("none", "mean", "lsq")


@dataclass(frozen=True)
class PrunedFile(Pruned):
    """Result of `prune_file`, and its path."""

    path: Path = Path()


@dataclass(frozen=True)
class _Work:
    """A graph, its inputs, and a plan for what is left of it without the removed blocks.

    `original` and `channels` are the traces with and without them."""

    graph: OnnxGraph
    examples: tuple[Any, ...]
    batches: Batches
    blocks: tuple[Block, ...]
    left: OnnxGraph
    original: ChannelGraph
    channels: ChannelGraph
    plan: PrunePlan
    latency: LatencyReport | None = None


def plan_file(path: PathLike, example_inputs: ExampleInputs | None = None, **options: Any) -> PrunePlan:
    """Decide which channels of an ONNX file stay; see `ef.plan_pruning` for the options, and `prune_file` for
    `size`, `images`, `preprocess` and `count`."""
    return _planned(Path(path), example_inputs, **options).plan


def prune_file(
    path: PathLike,
    example_inputs: ExampleInputs | None = None,
    *,
    output: PathLike,
    compensation: str = "none",
    memory_mb: int = 224,
    **options: Any,
) -> PrunedFile:
    """Prune an ONNX file and write the result: the same graph with smaller initializers.

    Args:
        path: a float ONNX file of any exporter.
        example_inputs: what it is first run on, in the order of its inputs; made from its declared shapes when None.
        output: an .onnx file, or a folder for the file, the plan and `source.json`.
        compensation: "none", "mean" or "lsq".
        options: `size` (height, width) for dynamic dimensions; `images`, a folder or prepared rows, with `preprocess`
            and `count`; and those of `ef.plan_pruning`, with names of initializers for `ignore` and `keep`, and of Add
            nodes for `remove_blocks`.

    Raises:
        ModelError: the file is no float graph that runs in torch, or none of its channels can go.
        UsageError: an option does not fit it.
    """
    if compensation not in COMPENSATIONS:
        raise UnknownNameError.of("compensation of an ONNX file", compensation, COMPENSATIONS)
    require_method(compensation, bool(options.get("layer_norms")))
    require_file_output(output, Path(path))
    work = _planned(Path(path), example_inputs, **options)
    before = output_shapes(work.graph.module, work.examples)
    compensated = compensation != "none"
    pruned = copy.deepcopy(work.left.module) if compensated and work.left is work.graph else work.left.module
    if compensated and work.blocks:
        means = {block.path: block.mean for block in work.blocks}
        pruned = without_blocks(work.graph, work.plan.removed_blocks, means).module
    channels_only = _without_blocks_removed(work.plan)
    surgery = apply_plan_to_module(pruned, channels_only)
    report = CompensationReport("none", (), ())
    if compensated:
        report = compensate(
            pruned, work.graph.module, channels_only, work.batches, method=compensation, graph=work.channels,
            memory_mb=memory_mb,
        )  # fmt: skip
    _require_same_outputs(before, output_shapes(pruned, work.examples), Path(path))
    costs = pruning_costs(work.original, work.channels, work.plan)
    written = save_pruned_file(work.left, pruned, work.plan, output, costs)
    return PrunedFile(work.plan, surgery, report, path=written, latency=work.latency, **costs)


def apply_plan_file(path: PathLike, plan: PrunePlan, output: PathLike, *, size: tuple[int, int] | None = None) -> Path:
    """Apply a plan to a file of the same network (another batch, image size or training), and write the result.

    Raises:
        PlanMismatchError: another network; names the first initializer that differs, and both shapes.
        ModelError: an output would change its shape.
    """
    require_file_output(output, Path(path))
    graph = open_onnx(path, size=size)
    examples = example_inputs(graph.module.inputs, size=size)
    before = output_shapes(graph.module, examples)
    left = without_blocks(graph, plan.removed_blocks) if plan.removed_blocks else graph
    apply_plan_to_module(left.module, _without_blocks_removed(plan))
    _require_same_outputs(before, output_shapes(left.module, examples), Path(path))
    return save_pruned_file(left, left.module, plan, output, {})


def inspect_file(path: PathLike, *, size: tuple[int, int] | None = None, multiple: int = 8) -> ModelInspection:
    """`ef.inspect_model` for an ONNX file."""
    graph = open_onnx(path, size=size)
    return inspect_module(graph.module, example_inputs(graph.module.inputs, size=size), multiple=multiple)


def _planned(
    path: Path,
    examples: Any,
    *,
    size: tuple[int, int] | None = None,
    images: Images = (),
    preprocess: Preprocess | None = None,
    count: int = 256,
    seed: int = 0,
    remove_blocks: int | Sequence[str] = 0,
    block_score: str = "contribution",
    **options: Any,
) -> _Work:
    graph = open_onnx(path, size=size)
    module = graph.module
    given = example_inputs(module.inputs, size=size) if examples is None else _as_arguments(graph, examples)
    batches = batches_for(module, path, images, preprocess=preprocess, size=size, count=count, seed=seed)
    if not isinstance(remove_blocks, int) and tuple(remove_blocks) == AUTO:
        raise UsageError(
            f"remove_blocks='auto' for {path}", allowed="a number of blocks, or their Add nodes, for an ONNX file"
        )
    blocks = choose_graph_blocks(graph, batches or [given], remove_blocks, block_score)
    removed = tuple(block.removed() for block in blocks)
    left = without_blocks(graph, removed) if removed else graph
    with collector_paused():
        norms = bool(options.get("layer_norms"))
        original = trace(module, given, layer_norms=norms)
        channels = trace(left.module, given, layer_norms=norms) if removed else original
    request = taken_request(options)
    if request is not None:
        request = replace(request, write=writer_of(left, size))
    plan = plan_module(left.module, given, images=batches, seed=seed, graph=channels, latency=request, **options)
    plan = plan.model_copy(update={"removed_blocks": removed})
    if not plan.groups and not removed and request is None and plan_wants_less(left.module, channels, options):
        reasons = "; ".join(f"{count} channels: {reason}" for reason, count in frozen_by(channels).most_common(3))
        raise ModelError(
            f"no group of channels of {path} can be pruned ({reasons or 'all are narrower than the multiple'})",
            allowed="a graph with a convolution or product whose width is free",
            remedy="`eightfold inspect` shows what keeps each group whole; a smaller --multiple may free some",
        )
    return _Work(graph, given, batches, blocks, left, original, channels, plan, report_of(request))


def _without_blocks_removed(plan: PrunePlan) -> PrunePlan:
    """The plan's channels alone, for a graph whose blocks are out already."""
    return plan.model_copy(update={"removed_blocks": ()})


def plan_wants_less(module: nn.Module, channels: ChannelGraph, options: JsonMapping) -> bool:
    """True if the options ask to prune anything."""
    budgets = budgets_of(module, channels, max_macs=options.get("max_macs"), max_params=options.get("max_params"))
    if budgets:
        return not all(budget.holds({}) for budget in budgets)
    return bool(options.get("keep")) or float(options.get("keep_ratio", 0.5)) < 1


def _as_arguments(graph: OnnxGraph, examples: Any) -> tuple[Any, ...]:
    import torch

    if isinstance(examples, Mapping):
        examples = tuple(examples[each.name] for each in graph.module.inputs)
    return tuple(torch.as_tensor(each) for each in (examples if isinstance(examples, tuple) else (examples,)))


def _require_same_outputs(
    before: Mapping[str, tuple[int, ...]], after: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    for name, shape in before.items():
        if after[name] != shape:
            raise ModelError(
                f"the output {name!r} of {path} would change its shape from {shape} to {after[name]}",
                allowed="plans that leave the outputs as they are",
                remedy="take the groups that produce it out of the plan",
            )
