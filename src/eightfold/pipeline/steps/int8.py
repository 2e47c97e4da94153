"""The steps from float graphs to INT8: equalized where that is asked for, calibrated once, quantized per target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.compress.plan.latency.budget_text import MIXED
from eightfold.errors import ImageError
from eightfold.export.targets import target_named
from eightfold.files import write_text
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import Artifacts, ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.job.step_keys import GRAPHS, device_key, image_key, versions
from eightfold.pipeline.steps.graph_files import library_versions, share, write_facts
from eightfold.runtime.bundle.manifest import Step as ManifestStep
from eightfold.scratch import scratch_folder

if TYPE_CHECKING:
    from eightfold.calib.images.image_set import ImageSet
    from eightfold.calib.ranges import Ranges
    from eightfold.export.int8.quant_report import QuantReport
    from eightfold.export.int8.score import Score
    from eightfold.recipe_deployment import QuantizeSection


def int8_steps(job: Job) -> list[PipelineStep]:
    """Steps that equalize, calibrate and quantize."""
    return [*_equalize_steps(job), _calibrate_step(job), *_quantize_steps(job)]


def _equalize_steps(job: Job) -> list[PipelineStep]:
    if not job.recipe.quantize.equalize:
        return []
    floats, graphs = job.artifacts.floats["pruned"].files, job.artifacts.calibrated.files
    settings = {"images": job.recipe.calibrate.images, **image_key(job), **versions(GRAPHS)}
    outputs = (*graphs, at.EQUALIZED)
    return [PipelineStep("equalize", (*floats, at.DATA), outputs, settings, partial(equalize_pruned, job))]


def equalize_pruned(job: Job, _: Path) -> str:
    """Balance channels across layers at every image and batch size, and check that each graph answers as before."""
    from eightfold.export.int8.equalize import GraphPair, equalize_batches

    graphs = zip(job.artifacts.floats["pruned"], job.artifacts.calibrated, strict=True)
    pairs = [GraphPair(job.path(source.path), job.path(wanted.path), job.fed_to(wanted)) for source, wanted in graphs]
    report = equalize_batches(pairs, images=_calibration_images(job))
    share(job, job.artifacts.calibrated)
    job.write(at.EQUALIZED, report.model_dump(mode="json", exclude={"steps": {"__all__": {"seconds"}}}))
    return report.describe().splitlines()[0]


def _equalized(job: Job, place: int) -> tuple[ManifestStep, ...]:
    """The manifest's steps of the n-th graph's equalization; none if it was not equalized."""
    if not job.recipe.quantize.equalize:
        return ()
    report = job.read(at.EQUALIZED)
    step = ManifestStep.model_validate(report["steps"][place])
    notes = (f"{len(report['groups'])} groups of layers equalized", *step.notes)
    return (step.model_copy(update={"notes": notes}),)


def _calibration_images(job: Job) -> ImageSet:
    return job.train_images.sample(job.recipe.calibrate.images, seed=job.recipe.seed)


def _calibrate_step(job: Job) -> PipelineStep:
    recipe = job.recipe
    settings = {
        "calibrate": recipe.calibrate.model_dump(),
        **image_key(job),
        **versions(GRAPHS),
    }
    return PipelineStep(
        "calibrate",
        (*Artifacts([job.artifacts.calibration]).files, at.DATA),
        (at.RANGES,),
        settings,
        partial(calibrate_pruned, job),
    )


def calibrate_pruned(job: Job, _: Path) -> str:
    """Calibrate the pruned graph; returns a summary."""
    from eightfold.calib.calibrate import calibrate

    section, graph = job.recipe.calibrate, job.artifacts.calibration
    images, preprocess = _calibration_images(job), job.fed
    ranges = calibrate(job.path(graph.path), images, preprocess, method=section.method, batch=graph.batch)
    ranges.save(job.path(at.RANGES))
    return f"{len(ranges.tensors)} tensors, {ranges.images} images, {section.method}"


def _quantize_steps(job: Job) -> list[PipelineStep]:
    floats = (*job.artifacts.calibrated.files, *job.artifacts.floats["pruned"].files)
    planned = (at.LATENCY_PLAN,) if _chooses_precisions(job) else ()
    sources = (at.RANGES, *floats, at.DATA, *planned)
    section = job.recipe.quantize
    settings = {
        **section.model_dump(exclude={"targets"}),
        "images": job.recipe.calibrate.images,
        **image_key(job),
        "task": job.task.section.model_dump(mode="json"),
        "versions": library_versions(),
        **(device_key() if section.form == "fastest" else {}),
    }
    return [
        PipelineStep(
            f"quantize {target}",
            tuple(dict.fromkeys(sources)),
            (*job.artifacts.int8[target].files, at.facts_of(f"int8-{target}")),
            {**settings, "target": target, "weight_bits": _weight_bits(section, target)},
            partial(quantize_pruned, job, target),
        )
        for target in section.targets
    ]


def _weight_bits(section: QuantizeSection, target: str) -> int:
    """Bits that the section asks for, or those that this machine's processor needs."""
    from eightfold.export.int8.weight_bits import bits_of, with_weight_bits

    return bits_of(with_weight_bits(target_named(target), section.weight_bits))


def quantize_pruned(job: Job, target: str, _: Path) -> str:
    """Emit INT8 for one target at every image and batch size; record how far each moves from FP32."""
    from eightfold.calib.ranges import Ranges

    ranges = Ranges.load(job.path(at.RANGES))
    kept = tuple(dict.fromkeys((*_layers_planned_float(job), *_layers_kept_float(job, ranges, target))))
    sources, graphs = job.artifacts.calibrated, job.artifacts.int8[target]
    steps = {}
    for place, (source, wanted) in enumerate(zip(sources, graphs, strict=True)):
        report = _quantize(job, _ranges_for(job, ranges, source), target, source, wanted, kept)
        steps[wanted.id] = [*_equalized(job, place), report.record()]
    share(job, graphs)
    write_facts(job, f"int8-{target}", steps)
    cosine = min(made[-1].cosine or 0.0 for made in steps.values())
    return f"{len(steps)} graphs, {len(kept)} layers given back to float, lowest cosine to FP32 {cosine:.4f}"


def _ranges_for(job: Job, ranges: Ranges, graph: ArtifactSpec) -> Ranges:
    """Found at the default image size, they are those of every other."""
    from eightfold.calib.other_size import ranges_at_size

    calibrated = job.artifacts.calibration
    if graph.size == calibrated.size:
        return ranges
    return ranges_at_size(ranges, job.path(calibrated.path), job.path(graph.path))


def _quantize(
    job: Job, ranges: Ranges, target: str, source: ArtifactSpec, wanted: ArtifactSpec, kept: Sequence[str]
) -> QuantReport:
    from eightfold.export.int8.quantize import quantize

    section = job.recipe.quantize
    _, report = quantize(
        job.path(source.path),
        ranges,
        job.path(wanted.path),
        target=target,
        keep_float=kept,
        form=section.form,
        weight_bits=section.weight_bits,
        rounding=section.rounding,
        bias_correction=section.bias_correction,
        images=_calibration_images(job),
        preprocess=job.fed_to(wanted),
        task=job.outputs,
    )
    return report


def _chooses_precisions(job: Job) -> bool:
    section = job.recipe.compress
    return section.latency is not None and section.precision == MIXED


def _layers_planned_float(job: Job) -> list[str]:
    """The layers that the plan within a latency budget keeps in float."""
    from eightfold.compress.latency.report import LatencyReport
    from eightfold.export.int8.float_layers import labels_at

    if not _chooses_precisions(job):
        return []
    plan = LatencyReport.load(job.path(at.LATENCY_PLAN))
    graph = job.path(job.artifacts.calibration.path)
    return labels_at(graph, plan.float_places, plan.weighted_layers) if plan.weighted_layers else []


def _layers_kept_float(job: Job, ranges: Ranges, target: str) -> tuple[str, ...]:
    """The layers that `max_drop` gives back to float, by the calibration images' labels, or by the float graph's
    answers where these have none; the trade is kept beside the graphs as a table and a plot."""
    from eightfold.export.int8.search_files import SearchBound, search_files

    section = job.recipe.quantize
    if section.max_drop is None:
        return ()
    trade = job.path(at.search_of(target))
    with scratch_folder() as folder:
        report = search_files(
            job.path(job.artifacts.calibration.path),
            ranges,
            folder / "int8.onnx",
            SearchBound(max_drop=section.max_drop),
            _calibration_images(job),
            job.fed,
            target=target,
            weight_bits=section.weight_bits,
            measure=section.form == "fastest",
            beside=trade,
            score=_score(job),
            most_float=section.most_float,
        )
    write_text(trade.with_suffix(".txt"), report.describe() + "\n")
    return report.steps[-1].kept_float


def _score(job: Job) -> Score:
    """The metric that `max_drop` bounds, on the calibration images; the likeness of raw outputs where a detector finds
    nothing there."""
    from eightfold.recipe_sections import TaskSection
    from eightfold.tasks.kinds import agreement_of

    images, reference = _calibration_images(job), job.path(job.artifacts.calibration.path)
    if not job.unlabelled:
        return job.task.score(images, job.fed, reference)
    try:
        return agreement_of(job.task.section).score(images, job.fed, reference)
    except ImageError:
        return agreement_of(TaskSection(kind="tensors")).score(images, job.fed, reference)
