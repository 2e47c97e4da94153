"""The step that plans the pruning of the baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.compress.plan.latency.budget_text import MIXED
from eightfold.compress.plan.selection_rules import MEASURED
from eightfold.json_types import JsonDict
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.recipe_sections import CompressSection

if TYPE_CHECKING:
    from torch import nn

    from eightfold.compress.latency.request import LatencyRequest
    from eightfold.compress.types import Loss

# Keys of `compress` that are arguments of `plan_pruning` under the same name.
PLAN_KEYS = (
    "rule",
    "score",
    "keep_ratio",
    "multiple",
    "ignore",
    "keep",
    "max_macs",
    "max_params",
    "rounding",
    "layer_keep",
    "merge",
    "remove_blocks",
    "block_score",
    "layer_norms",
)
# Keys of `compress` that make a latency request.
LATENCY_KEYS = ("target", "precision", "batch", "threads", "rounds", "target_weights", "memory", "energy")


def prune_baseline(job: Job, _: Path) -> str:
    from eightfold.compress.plan.select import LayerRange
    from eightfold.compress.plan_pruning import plan_module
    from eightfold.compress.surgery.surgery import apply_plan_to_module

    section = job.recipe.compress
    model = job.baseline_model()
    inputs, targets, loss = _score_inputs(job)
    request = _latency_request(job)
    plan = plan_module(
        model,
        (*job.model_inputs(), *job.networks.trace_arguments),
        latency=request,
        target=section.target,
        precision=section.precision,
        threads=section.threads,
        images=inputs,
        targets=targets,
        loss=loss,
        ranges=[LayerRange(until=each.until, keep_ratio=each.keep_ratio) for each in section.ranges],
        seed=job.recipe.seed,
        **{name: getattr(section, name) for name in PLAN_KEYS},
    )
    before = widths_by_layer(model)
    report = apply_plan_to_module(model, plan)
    plan.save(job.path(at.PLAN))
    if request is not None and request.reports:
        request.reports[-1].save(job.path(at.LATENCY_PLAN))
    job.write(at.WIDTHS, width_facts(model, before))
    if not plan.groups and not plan.removed_blocks:
        return f"nothing to prune, {report.parameters_before:,} parameters"
    return f"{len(plan.groups)} groups pruned, {report.parameters_before:,} -> {report.parameters_after:,} parameters"


def _latency_request(job: Job) -> LatencyRequest | None:
    from eightfold.compress.latency.request import latency_request

    section = job.recipe.compress
    options = {name: getattr(section, name) for name in LATENCY_KEYS}
    request = latency_request(section.latency, **options)
    return None if request is None else replace(request, write=job.networks.writer())


def _score_inputs(job: Job) -> tuple[Any, Iterable[Any], Loss | None]:
    """The training images, and their targets and loss, for scores and blocks that look at them; nothing for others."""
    from eightfold.compress.criteria.scores import needs_of

    section, needs = job.recipe.compress, needs_of(job.recipe.compress.score)
    if not looks_at_images(section):
        return (), (), None
    images = job.train_images.sample(section.compensate_images, seed=job.recipe.seed)
    loss, targets = (job.task.supervision(images) if needs == "loss" else None) or (None, ())
    return training_inputs(job, section.compensate_images), targets, loss


def looks_at_images(section: CompressSection) -> bool:
    """True if the plan depends on images."""
    from eightfold.compress.criteria.scores import needs_of

    blocks = bool(section.remove_blocks) and section.block_score != "bn_scale"
    mixed = section.latency is not None and section.precision == MIXED
    return needs_of(section.score) != "weights" or blocks or section.rule == MEASURED or mixed


def training_inputs(job: Job, count: int) -> Any:
    """Training images as the network takes them."""
    import torch

    from eightfold.tasks.inputs import tensors

    images = job.train_images.sample(count, seed=job.recipe.seed)
    rows = tensors(images, np.arange(len(images)), job.recipe.preprocess)
    batch = job.networks.batch
    if batch is not None and len(rows) < batch:
        rows = np.resize(rows, (batch, *rows.shape[1:]))
    return job.networks.batches(torch.from_numpy(rows))


def widths_by_layer(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (inputs, outputs) of each convolution and linear layer. A grouped one counts the inputs of all groups."""
    from torch import nn

    from eightfold.compress.onnx.module import OnnxModule

    if isinstance(model, OnnxModule):  # its weights are those of the graph; a depthwise one has one input
        shapes = {name: each.shape for name, each in model.named_parameters() if each.dim() > 1}
        return {name: (shape[1] if shape[1] > 1 else shape[0], shape[0]) for name, shape in shapes.items()}
    widths = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            widths[name] = layer.in_features, layer.out_features
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            widths[name] = layer.in_channels, layer.out_channels
    return widths


def width_facts(model: nn.Module, before: dict[str, tuple[int, int]]) -> list[JsonDict]:
    """The layers of the pruned `model` as the report shows them, beside the widths they had."""
    return [
        {
            "layer": name,
            "kind": _kind(model, name),
            "in_before": before[name][0],
            "in_after": inputs,
            "out_before": before[name][1],
            "out_after": outputs,
        }
        for name, (inputs, outputs) in widths_by_layer(model).items()
    ]


def _kind(model: nn.Module, name: str) -> str:
    from eightfold.compress.onnx.module import OnnxModule

    return "weight" if isinstance(model, OnnxModule) else type(model.get_submodule(name)).__name__
