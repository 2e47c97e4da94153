"""The steps that give the data, the baseline, and the pruned network, recovered or fine-tuned."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.calib.images.image_set import warn_of_overlap
from eightfold.files import atomic_directory
from eightfold.json_types import JsonDict
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.recipe_paths import is_path
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.job.step_keys import IMAGES, MODULES, image_key, model_key, versions
from eightfold.pipeline.steps.prune import looks_at_images, prune_baseline, training_inputs
from eightfold.recipe import Recipe
from eightfold.recipe_sections import TrainSection
from eightfold.runtime.report.report_format import metric_label
from eightfold.tasks.photos import open_photos, write_photos

if TYPE_CHECKING:
    from torch import nn

    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.train.hooks import Hook
    from eightfold.tasks.base import Network


def train_steps(job: Job) -> list[PipelineStep]:
    recipe = job.recipe
    model = {**model_key(job), **image_key(job), **versions(MODULES)}
    task = {"task": job.task.section.model_dump(mode="json")}
    train = {**model, **task, "train": recipe.train.model_dump()}
    after = {"finetune", "compensate", "compensate_images", "recover_minutes"}
    prune = {**model, "compress": recipe.compress.model_dump(exclude=after)}
    finetune = {**model, **task, "compress": recipe.compress.model_dump(include=after)}
    baseline, answers = job.networks.baseline, (at.ANSWERS,) if job.by_agreement else ()
    looked_at = (at.DATA,) if looks_at_images(recipe.compress) else ()
    made = (baseline, at.BASELINE_FACTS, *answers)
    report = () if recipe.compress.latency is None else (at.LATENCY_PLAN,)
    pruned = (at.PLAN, baseline, at.DATA, *answers)
    return [
        PipelineStep("data", (), (at.DATA,), _data_settings(job), partial(write_data, job)),
        PipelineStep(baseline_step(recipe), (at.DATA,), made, train, partial(train_baseline, job)),
        PipelineStep(
            "prune", (baseline, *looked_at), (at.PLAN, at.WIDTHS, *report), prune, partial(prune_baseline, job)
        ),
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
    if section.recover_minutes:
        return "recover"
    return "apply plan" if section.compensate == "none" else "compensate"


def _data_settings(job: Job) -> JsonDict:
    """With a digest of the user's own images: what was added or changed makes the run start over."""
    task, data = job.recipe.task, job.recipe.data
    content = open_photos(data.source).digest() if job.unlabelled else job.task.data_digest(data)
    # A path is no part of it, the name of a data set is.
    paths = {"source", "labelled", "train", "test"} if is_path(data.source) else {"labelled"}
    settings = {**data.model_dump(exclude=paths), "labels": task.labels, "content": content}
    if job.unlabelled:
        settings["fitting"] = [
            job.recipe.preprocess.color,
            job.recipe.preprocess.channels,
            job.recipe.preprocess.pixels,
        ]
    if data.labelled is not None:
        settings["labelled content"] = job.task.test_digest(data, data.labelled)
    return {"data": settings, "seed": job.recipe.seed, **versions((*IMAGES, "mlxtend"))}


def write_data(job: Job, _: Path) -> str:
    data, directory = job.recipe.data, job.path(at.DATA)
    seed, preprocess = job.recipe.seed, job.recipe.preprocess
    if job.by_agreement:
        write_photos(data, directory, seed=seed, preprocess=preprocess)
    elif data.labelled is None:
        job.task.write_data(data, directory, seed=seed)
    else:
        with atomic_directory(directory) as temporary:
            write_photos(data, temporary / "photos", seed=seed, preprocess=preprocess, held_out=False)
            (temporary / "photos" / "train").rename(temporary / "train")
            shutil.rmtree(temporary / "photos")
            job.task.write_test(data.labelled, temporary / "test")
    shared = warn_of_overlap(job.train_images, job.test_images)
    both = f", {shared} of them in both" if shared else ""
    return f"{len(job.train_images)} training and {len(job.test_images)} test images{both}"


def train_baseline(job: Job, scratch: Path) -> str:
    model = job.networks.original()
    _require_outputs(job, model)
    if job.by_agreement:
        _write_answers(job, model)
    facts = _train(job, model, job.recipe.train, scratch, "training")
    job.networks.save_baseline(model)
    job.write(at.BASELINE_FACTS, facts)
    return _describe(job, facts)


def _require_outputs(job: Job, model: nn.Module) -> None:
    from eightfold.tasks.networks import module_network

    (images,) = job.model_inputs()
    network = module_network(model, job.recipe.preprocess, job.raw_outputs, batch=len(images))
    job.task.require_outputs(network, images.numpy(), f"{job.recipe.model.source} on {job.recipe.data.source}")


def _write_answers(job: Job, model: nn.Module) -> None:
    """The original's answers on the held-out images, which the other networks are held against."""
    from eightfold.tasks.agreement import AgreementTask
    from eightfold.tasks.answers import save_answers

    if isinstance(job.task, AgreementTask):
        save_answers(job.task.answers(_network(job, model), job.test_images), job.path(at.ANSWERS))
        vars(job).pop("test_images", None)  # from now on they carry the answers


def _network(job: Job, model: nn.Module) -> Network:
    from eightfold.tasks.networks import MODULE_BATCH, module_network

    batch = job.networks.batch or MODULE_BATCH
    return module_network(model, job.recipe.preprocess, job.raw_outputs, batch=batch)


def finetune_pruned(job: Job, scratch: Path) -> str:
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.surgery.surgery import apply_plan_to_module

    model, plan = job.baseline_model(), PrunePlan.load(job.path(at.PLAN))
    apply_plan_to_module(model, plan)
    _compensate(job, model, plan)
    _recover(job, model, plan, scratch)
    facts = _train(job, model, job.recipe.compress.finetune, scratch, "fine-tuning")
    job.networks.save_pruned(model, plan)
    job.write(at.PRUNED_FACTS, facts)
    return _describe(job, facts)


def _describe(job: Job, facts: JsonDict) -> str:
    metric = job.task.metrics[0]
    shown = f"{metric_label(metric)} {facts[metric]:.1%}"
    return f"{shown}, {facts['parameters']:,} parameters, {facts['macs'] / 1e6:,.0f} M MACs"


def _compensate(job: Job, pruned: nn.Module, plan: PrunePlan) -> None:
    from eightfold.compress.compensate.compensate import compensate

    section = job.recipe.compress
    if section.compensate == "none":
        return
    inputs = training_inputs(job, section.compensate_images)
    compensate(pruned, job.baseline_model(), plan, inputs, method=section.compensate, seed=job.recipe.seed)


def _recover(job: Job, pruned: nn.Module, plan: PrunePlan, scratch: Path) -> None:
    from eightfold.compress.train.recover.options import RecoverOptions
    from eightfold.compress.train.recover.recover import recover

    section, usual = job.recipe.compress, RecoverOptions()
    if not section.recover_minutes:
        return
    recover(
        pruned,
        job.baseline_model(),
        [str(item) for item in job.train_images.items],
        plan=plan,
        minutes=section.recover_minutes,
        preprocess=job.recipe.preprocess,
        options=RecoverOptions(batch=job.networks.batch or usual.batch, least_squares=section.compensate != "lsq"),
        checkpoint=scratch / "recover.safetensors",
        log=job.path(at.RECOVERY_LOG),
        seed=job.recipe.seed,
    )


def _train(job: Job, model: nn.Module, section: TrainSection, scratch: Path, what: str) -> JsonDict:
    """Train `model` in place and measure it: the task's metrics on the test images, parameters, MACs of one image."""
    from eightfold.compress.trace.macs import count_macs, count_parameters
    from eightfold.tasks.base import Training

    preprocess, checkpoint = job.recipe.preprocess, scratch / "checkpoint.safetensors"
    hooks = _hooks(job, model, section)
    loss = job.task.train(
        model, Training(job.train_images, preprocess, section, job.recipe.seed, checkpoint, what, hooks)
    )
    network = _network(job, model)
    return {
        "loss": loss,
        **job.task.evaluate(network, job.test_images),
        "parameters": count_parameters(model),
        "macs": count_macs(model, job.model_inputs()) // (job.networks.batch or 1),
    }


def _hooks(job: Job, model: nn.Module, section: TrainSection) -> list[Hook]:
    """The penalty and the teacher that the recipe asks for."""
    hooks: list[Hook] = []
    if section.epochs and section.sparsity:
        from eightfold.compress.train.sparsity.hook import Sparsity
        from eightfold.compress.train.sparsity.sparsify import penalty_of
        from eightfold.compress.train.sparsity.strength import Strength

        strength = Strength(section.sparsity, section.sparsity_schedule)
        example = (*job.model_inputs(), *job.networks.trace_arguments)
        hooks.append(Sparsity(penalty_of(section.sparsity_penalty, model, strength, "all", example)))
    if section.epochs and section.distill:
        from eightfold.tasks.distilling import distillation_hooks

        teacher = job.baseline_model()
        classes = tuple(job.train_images.classes)
        hooks += distillation_hooks(
            job.task,
            model,
            teacher,
            section.distill,
            job.model_inputs(),
            classes,
            temperature=section.distill_temperature,
        )
    return hooks
