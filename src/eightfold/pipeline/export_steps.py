"""The steps from a torch module to files that other machines run: ONNX, ranges, INT8, engines."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.target import parse_target
from eightfold.export.trials import COMPARED_IMAGES
from eightfold.export.verify import Tolerance
from eightfold.files import atomic_directory, write_text
from eightfold.pipeline import job as at
from eightfold.pipeline.artifacts import (
    VARIANTS,
    Wanted,
    calibrated_artifacts,
    engine_artifacts,
    files_of,
    float_artifacts,
    int8_artifacts,
)
from eightfold.pipeline.decode_steps import decode_steps
from eightfold.pipeline.graph_files import share, write_facts
from eightfold.pipeline.job import Job
from eightfold.pipeline.runner import Step
from eightfold.progress import track
from eightfold.runtime.manifest import Step as ManifestStep
from eightfold.runtime.versions import runtime_versions

if TYPE_CHECKING:
    from eightfold.calib.images import ImageSet
    from eightfold.calib.ranges import Ranges
    from eightfold.export.quant_report import QuantReport


def export_steps(job: Job) -> list[Step]:
    from eightfold.export.in_graph import require_pixels_taken

    recipe = job.recipe
    if recipe.export.preprocess == "in-graph":
        require_pixels_taken(recipe.targets)
    sources = {"baseline": (at.BASELINE,), "pruned": (at.PRUNED, at.BASELINE)}
    settings = {
        "export": recipe.export.model_dump(),
        "opset": _opset(job),
        "model": recipe.model.source,
        "preprocess": recipe.preprocess.digest(),
        "versions": _versions(),
    }
    exports = [
        Step(
            f"export {variant}",
            (*sources[variant], at.DATA),
            (*files_of(float_artifacts(recipe, variant)), at.facts_of(variant)),
            settings,
            partial(export_variant, job, variant),
        )
        for variant in VARIANTS
    ]
    return [
        *exports,
        *_equalize_steps(job),
        _calibrate_step(job),
        *_quantize_steps(job),
        *decode_steps(job),
        *_engine_steps(job),
    ]


def _opset(job: Job) -> int:
    from eightfold.export.opsets import opset_for

    chosen = job.recipe.export.opset
    return opset_for(job.recipe.targets) if chosen is None else chosen


def _versions() -> dict[str, str]:
    """The versions of the libraries whose output may change with them."""
    return {name: version for name, version in runtime_versions().items() if version}


def export_variant(job: Job, variant: str, _: Path) -> str:
    """Export and simplify at every batch size, and compare each file with torch on test images."""
    from eightfold.export.batches import export_batches
    from eightfold.export.in_graph import put_preprocess_in
    from eightfold.export.trials import whole_runs

    recipe, tolerance = job.recipe, Tolerance(max_rel_error=job.recipe.export.tolerance)
    wanted = {each.batch: each for each in float_artifacts(recipe, variant)}
    steps = export_batches(
        job.model(variant),
        {batch: job.path(each.path) for batch, each in wanted.items()},
        images=job.first_test_images(COMPARED_IMAGES, recipe.preprocess),
        opset=_opset(job),
        tolerance=tolerance,
    )
    if recipe.export.preprocess == "in-graph":
        pixels = job.first_test_images(COMPARED_IMAGES, job.fed)
        for batch, each in wanted.items():
            rows = whole_runs(pixels, batch)
            step = put_preprocess_in(job.path(each.path), recipe.preprocess, tolerance=tolerance, images=rows)[1]
            steps[batch] = (*steps[batch], step)
    share(job, list(wanted.values()))
    write_facts(job, variant, {each.id: steps[batch] for batch, each in wanted.items()})
    worst = max(step.max_rel_error or 0.0 for found in steps.values() for step in found)
    return f"{len(steps)} graphs, largest relative error {worst:.1g}"


def _equalize_steps(job: Job) -> list[Step]:
    if not job.recipe.quantize.equalize:
        return []
    floats, graphs = files_of(float_artifacts(job.recipe, "pruned")), files_of(calibrated_artifacts(job.recipe))
    settings = {"images": job.recipe.calibrate.images, "seed": job.recipe.seed}
    outputs = (*graphs, at.EQUALIZED)
    return [Step("equalize", (*floats, at.DATA), outputs, settings, partial(equalize_pruned, job))]


def equalize_pruned(job: Job, _: Path) -> str:
    """Balance channels across layers at every batch size, and check that each graph answers as before."""
    from eightfold.calib.equalize import equalize_batches
    from eightfold.export.equalize_step import verify_equalized

    pairs = zip(float_artifacts(job.recipe, "pruned"), calibrated_artifacts(job.recipe), strict=True)
    paths = {job.path(source.path): job.path(wanted.path) for source, wanted in pairs}
    images, preprocess = _calibration_images(job), job.fed
    report = equalize_batches(paths, images=images, preprocess=preprocess)
    steps = [verify_equalized(before, after, images, preprocess) for before, after in paths.items()]
    share(job, calibrated_artifacts(job.recipe))
    checked = [step.model_dump(mode="json", exclude={"seconds"}) for step in steps]
    job.write(at.EQUALIZED, {**report.model_dump(mode="json"), "steps": checked})
    return report.describe().splitlines()[0]


def _equalized(job: Job, place: int) -> tuple[ManifestStep, ...]:
    """What the manifest says of it, where it was done, for the so-manieth batch size."""
    if not job.recipe.quantize.equalize:
        return ()
    report = job.read(at.EQUALIZED)
    step = ManifestStep.model_validate(report["steps"][place])
    notes = (f"{len(report['groups'])} groups of layers equalized", *step.notes)
    return (step.model_copy(update={"notes": notes}),)


def _calibration_images(job: Job) -> ImageSet:
    return job.train_images.sample(job.recipe.calibrate.images, seed=job.recipe.seed)


def _calibrate_step(job: Job) -> Step:
    recipe = job.recipe
    graph = _calibration_graph(job)
    settings = {
        "calibrate": recipe.calibrate.model_dump(),
        "preprocess": recipe.preprocess.digest(),
        "seed": recipe.seed,
    }
    return Step("calibrate", (*files_of([graph]), at.DATA), (at.RANGES,), settings, partial(calibrate_pruned, job))


def _calibration_graph(job: Job) -> Wanted:
    """The largest batch: it runs fastest per image, and the ranges hold for all."""
    return max(calibrated_artifacts(job.recipe), key=lambda wanted: wanted.batch)


def calibrate_pruned(job: Job, _: Path) -> str:
    from eightfold.calib.calibrate import calibrate

    section, graph = job.recipe.calibrate, _calibration_graph(job)
    images, preprocess = _calibration_images(job), job.fed
    ranges = calibrate(job.path(graph.path), images, preprocess, method=section.method, batch=graph.batch)
    ranges.save(job.path(at.RANGES))
    return f"{len(ranges.tensors)} tensors, {ranges.images} images, {section.method}"


def _quantize_steps(job: Job) -> list[Step]:
    sources = (at.RANGES, *files_of(calibrated_artifacts(job.recipe)), *files_of(float_artifacts(job.recipe, "pruned")))
    section = job.recipe.quantize.model_dump(exclude={"targets"})
    return [
        Step(
            f"quantize {target}",
            tuple(dict.fromkeys(sources)),
            (*files_of(int8_artifacts(job.recipe, target)), at.facts_of(f"int8-{target}")),
            {"target": target, "versions": _versions(), **section},
            partial(quantize_pruned, job, target),
        )
        for target in job.recipe.quantize.targets
    ]


def quantize_pruned(job: Job, target: str, _: Path) -> str:
    """Emit INT8 for one target at every batch size; record how far each moves from FP32."""
    from eightfold.calib.ranges import Ranges

    ranges = Ranges.load(job.path(at.RANGES))
    kept = _layers_kept_float(job, ranges, target)
    sources, graphs = calibrated_artifacts(job.recipe), int8_artifacts(job.recipe, target)
    steps = {}
    for place, (source, wanted) in enumerate(zip(sources, graphs, strict=True)):
        report = _quantize(job, ranges, target, source, wanted, kept)
        steps[wanted.id] = [*_equalized(job, place), report.record()]
    share(job, graphs)
    write_facts(job, f"int8-{target}", steps)
    cosine = min(made[-1].cosine or 0.0 for made in steps.values())
    return f"{len(steps)} graphs, {len(kept)} layers given back to float, lowest cosine to FP32 {cosine:.4f}"


def _quantize(
    job: Job, ranges: Ranges, target: str, source: Wanted, wanted: Wanted, kept: Sequence[str]
) -> QuantReport:
    from eightfold.export.quantize import quantize

    section = job.recipe.quantize
    _, report = quantize(
        job.path(source.path),
        ranges,
        job.path(wanted.path),
        target=target,
        keep_float=kept,
        form=section.form,
        rounding=section.rounding,
        bias_correction=section.bias_correction,
        images=_calibration_images(job),
        preprocess=job.fed,
    )
    return report


def _layers_kept_float(job: Job, ranges: Ranges, target: str) -> tuple[str, ...]:
    """The layers that `max_drop` gives back to float, by the calibration images' labels; the trade is kept beside the
    graphs as a table and a plot."""
    from eightfold.export.search import SearchBound, search_files

    section = job.recipe.quantize
    if section.max_drop is None:
        return ()
    trade = job.path(at.search_of(target))
    with tempfile.TemporaryDirectory() as folder:
        report = search_files(
            job.path(_calibration_graph(job).path),
            ranges,
            Path(folder) / "int8.onnx",
            SearchBound(max_drop=section.max_drop),
            _calibration_images(job),
            job.fed,
            target=target,
            measure=section.form == "fastest",
            beside=trade,
            score=job.task.score(_calibration_images(job), job.fed),
        )
    write_text(trade.with_suffix(".txt"), report.describe() + "\n")
    return report.steps[-1].kept_float


def _engine_steps(job: Job) -> list[Step]:
    wanted = engine_artifacts(job.recipe)
    if not wanted:
        return []
    sources = (*files_of(dict.fromkeys(map(_source_of, wanted))), at.DATA)
    options = _engine_options(job).without_files().model_dump(mode="json", exclude_defaults=True)
    settings = {"engines": [engine.id for engine in wanted], "versions": _versions(), "options": options}
    if not job.path(at.ENGINES).exists():  # what the builder lacks is to be known before the network is trained
        _require_builder(job, wanted)
    return [Step("engines", sources, (at.ENGINES,), settings, partial(build_engines, job))]


def _require_builder(job: Job, wanted: Sequence[Wanted]) -> None:
    from eightfold.export.tensorrt.build import require_builder

    for precision in {engine.precision for engine in wanted}:
        require_builder(wanted[0].target, precision, _engine_options(job))


def _engine_options(job: Job) -> BuildOptions:
    """Those of the recipe. Where the builder measures kernels it keeps their times in the run directory, for the other
    engines and the next run."""
    section = job.recipe.engines
    options = section.options if section else BuildOptions()
    if section is None or options.timing_cache or parse_target(section.target).family == "rtx":
        return options
    return options.model_copy(update={"timing_cache": job.path(at.TIMING_CACHE)})


def _source_of(engine: Wanted) -> Wanted:
    """The graph an engine is built from: FP32 for FP16, the target's Q/DQ graph for INT8."""
    if engine.precision == "int8":
        return Wanted("pruned", "int8", engine.target, engine.batch)
    return Wanted("pruned", "fp32", "any", engine.batch)


def build_engines(job: Job, _: Path) -> str:
    from eightfold.export.tensorrt.build import build_engine

    wanted = engine_artifacts(job.recipe)
    # On these the builder's graph is checked for what 16 bits cannot hold.
    inputs = {"images": job.first_test_images(max(engine.batch for engine in wanted), job.fed)}
    with atomic_directory(job.path(at.ENGINES)) as folder:
        for engine in track(wanted, "building engines"):
            source = job.path(_source_of(engine).path)
            output = folder / Path(engine.path).name
            build_engine(
                source,
                output,
                target=engine.target,
                precision=engine.precision,
                options=_engine_options(job),
                inputs=inputs,
            )
    return f"{len(wanted)} engines for {wanted[0].target}"
