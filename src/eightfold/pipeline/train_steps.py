"""The steps that end in a pruned, fine-tuned network: data, baseline, plan, fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.calib.images.image_set import warn_of_overlap
from eightfold.extras import require
from eightfold.files import atomic_path
from eightfold.pipeline import job as at
from eightfold.pipeline.job import Job
from eightfold.pipeline.runner import PipelineStep
from eightfold.pipeline.step_keys import IMAGES, MODULES, image_key, model_key, versions
from eightfold.recipe import Recipe, TrainSection
from eightfold.runtime.report.report_format import metric_label

if TYPE_CHECKING:
    import torch
    from torch import nn

    from eightfold.calib.images.image_set import ImageSet
    from eightfold.compress.criteria.evidence import Loss
    from eightfold.compress.plan.plan import PrunePlan


def train_steps(job: Job) -> list[PipelineStep]:
    recipe = job.recipe
    model = {**model_key(job), **image_key(job), **versions(MODULES)}
    task = {"task": job.task.section.model_dump(mode="json")}
    train = {**model, **task, "train": recipe.train.model_dump()}
    after = {"finetune", "compensate", "compensate_images"}
    prune = {**model, "compress": recipe.compress.model_dump(exclude=after)}
    finetune = {**model, **task, "compress": recipe.compress.model_dump(include=after)}
    pruned = (at.PLAN, at.BASELINE, at.DATA)
    return [
        PipelineStep("data", (), (at.DATA,), _data_settings(job), partial(write_data, job)),
        PipelineStep(
            baseline_step(recipe), (at.DATA,), (at.BASELINE, at.BASELINE_FACTS), train, partial(train_baseline, job)
        ),
        PipelineStep("prune", (at.BASELINE, at.DATA), (at.PLAN, at.WIDTHS), prune, partial(prune_baseline, job)),
        PipelineStep(
            pruned_step(recipe), pruned, (at.PRUNED, at.PRUNED_FACTS), finetune, partial(finetune_pruned, job)
        ),
    ]


def baseline_step(recipe: Recipe) -> str:
    """The name of the step that gives the baseline, by what it does."""
    return "train" if recipe.train.epochs else "load weights"


def pruned_step(recipe: Recipe) -> str:
    """The name of the step that gives the pruned network, by what it does to it."""
    section = recipe.compress
    if section.finetune.epochs:
        return "finetune"
    return "apply plan" if section.compensate == "none" else "compensate"


def _data_settings(job: Job) -> dict[str, Any]:
    """With a digest of the user's own images: what was added or changed makes the run start over."""
    task, data = job.recipe.task, job.recipe.data
    settings = {**data.model_dump(), "labels": task.labels, "content": job.task.data_digest(data)}
    return {"data": settings, "seed": job.recipe.seed, **versions((*IMAGES, "mlxtend"))}


def write_data(job: Job, _: Path) -> str:
    job.task.write_data(job.recipe.data, job.path(at.DATA), seed=job.recipe.seed)
    shared = warn_of_overlap(job.train_images, job.test_images)
    both = f", {shared} of them in both" if shared else ""
    return f"{len(job.train_images)} training and {len(job.test_images)} test images{both}"


def train_baseline(job: Job, scratch: Path) -> str:
    from eightfold.zoo.weights import load_weights

    save_file = require("safetensors.torch", "write weights").save_file
    model = job.new_model()
    if job.recipe.model.weights:
        load_weights(model, job.recipe.model.weights)
    _require_outputs(job, model)
    facts = _train(job, model, job.recipe.train, scratch, "training")
    with atomic_path(job.path(at.BASELINE)) as temporary:
        save_file(model.state_dict(), str(temporary))
    job.write(at.BASELINE_FACTS, facts)
    return _describe(job, facts)


def _require_outputs(job: Job, model: nn.Module) -> None:
    from eightfold.tasks.networks import module_network

    (images,) = job.example_inputs()
    network = module_network(model, job.recipe.preprocess, job.raw_outputs, batch=len(images))
    job.task.require_outputs(network, images.numpy(), f"{job.recipe.model.source} on {job.recipe.data.source}")


def prune_baseline(job: Job, _: Path) -> str:
    from eightfold.compress.plan_pruning import plan_pruning
    from eightfold.compress.surgery.surgery import apply_plan

    section = job.recipe.compress
    model = job.baseline_model()
    inputs, targets, loss = _score_inputs(job)
    plan = plan_pruning(
        model,
        job.example_inputs(),
        rule=section.rule,
        score=section.score,
        keep_ratio=section.keep_ratio,
        multiple=section.multiple,
        ignore=section.ignore,
        images=inputs,
        targets=targets,
        loss=loss,
        seed=job.recipe.seed,
    )
    before = layer_widths(model)
    report = apply_plan(model, plan)
    plan.save(job.path(at.PLAN))
    job.write(at.WIDTHS, width_facts(model, before))
    return f"{len(plan.groups)} groups pruned, {report.parameters_before:,} -> {report.parameters_after:,} parameters"


def _score_inputs(job: Job) -> tuple[torch.Tensor | tuple[()], Iterable[Any], Loss | None]:
    """The training images, and their targets and loss, for a score that looks at them; nothing for others."""
    from eightfold.compress.criteria.scores import needs_of

    needs = needs_of(job.recipe.compress.score)
    if needs == "weights":
        return (), (), None
    images = job.train_images.sample(job.recipe.compress.compensate_images, seed=job.recipe.seed)
    loss, targets = (job.task.supervision(images) if needs == "loss" else None) or (None, ())
    return _inputs(job, images), targets, loss


def _inputs(job: Job, images: ImageSet) -> torch.Tensor:
    import torch

    from eightfold.tasks.inputs import tensors

    return torch.from_numpy(tensors(images, np.arange(len(images)), job.recipe.preprocess))


def layer_widths(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (inputs, outputs) of each convolution and linear layer. A grouped one counts the inputs of all groups."""
    from torch import nn

    widths = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            widths[name] = layer.in_features, layer.out_features
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d):
            widths[name] = layer.in_channels, layer.out_channels
    return widths


def width_facts(model: nn.Module, before: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """The layers of the pruned `model` as the report shows them, beside the widths they had."""
    return [
        {
            "layer": name,
            "kind": type(model.get_submodule(name)).__name__,
            "in_before": before[name][0],
            "in_after": inputs,
            "out_before": before[name][1],
            "out_after": outputs,
        }
        for name, (inputs, outputs) in layer_widths(model).items()
    ]


def finetune_pruned(job: Job, scratch: Path) -> str:
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.surgery.artifacts import save_pruned
    from eightfold.compress.surgery.surgery import apply_plan

    model, plan = job.baseline_model(), PrunePlan.load(job.path(at.PLAN))
    apply_plan(model, plan)
    _compensate(job, model, plan)
    facts = _train(job, model, job.recipe.compress.finetune, scratch, "fine-tuning")
    shutil.rmtree(job.path(at.PRUNED), ignore_errors=True)
    save_pruned(model, plan, job.path(at.PRUNED))
    job.write(at.PRUNED_FACTS, facts)
    return _describe(job, facts)


def _describe(job: Job, facts: dict[str, Any]) -> str:
    metric = job.task.metrics[0]
    shown = f"{metric_label(metric)} {facts[metric]:.1%}"
    return f"{shown}, {facts['parameters']:,} parameters, {facts['macs'] / 1e6:,.0f} M MACs"


def _compensate(job: Job, pruned: nn.Module, plan: PrunePlan) -> None:
    from eightfold.compress.compensate.compensate import compensate

    section = job.recipe.compress
    if section.compensate == "none":
        return
    images = job.train_images.sample(section.compensate_images, seed=job.recipe.seed)
    inputs = _inputs(job, images)
    compensate(pruned, job.baseline_model(), plan, inputs, method=section.compensate, seed=job.recipe.seed)


def _train(job: Job, model: nn.Module, section: TrainSection, scratch: Path, what: str) -> dict[str, Any]:
    """Train `model` in place and measure it: the task's metrics on the test images, parameters, MACs of one image."""
    from eightfold.compress.trace.macs import count_macs, count_parameters
    from eightfold.tasks.base import Training
    from eightfold.tasks.networks import module_network

    preprocess, checkpoint = job.recipe.preprocess, scratch / "checkpoint.safetensors"
    loss = job.task.train(model, Training(job.train_images, preprocess, section, job.recipe.seed, checkpoint, what))
    network = module_network(model, preprocess, job.raw_outputs)
    return {
        "loss": loss,
        **job.task.evaluate(network, job.test_images),
        "parameters": count_parameters(model),
        "macs": count_macs(model, job.example_inputs()),
    }
