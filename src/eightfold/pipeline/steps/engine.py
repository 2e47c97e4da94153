"""The step from graphs to engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from eightfold.export.target_names import parse_target
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.files import atomic_directory
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import Artifacts, ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.job.step_keys import device_key, image_key
from eightfold.pipeline.steps.graph_files import library_versions
from eightfold.progress import track

# Each stretch of a network is tried in 16 bits on all of them.
FEWEST_IMAGES = 4


def engine_steps(job: Job) -> list[PipelineStep]:
    """Steps that build engines."""
    wanted = job.artifacts.engines
    if not wanted:
        return []
    sources = (*Artifacts(dict.fromkeys(map(_source_of, wanted))).files, at.DATA)
    targets = dict.fromkeys(engine.target for engine in wanted)
    options = BuildOptions() if job.recipe.engines is None else job.recipe.engines.options
    settings = {
        "engines": [engine.id for engine in wanted],
        "options": options.without_files().model_dump(mode="json", exclude_defaults=True),
        **image_key(job),
        **({} if all(map(_is_rtx, targets)) else device_key()),
        "versions": library_versions(),
    }
    if not job.path(at.ENGINES).exists():  # what the builder lacks is to be known before the network is trained
        _require_builder(job, wanted)
    return [PipelineStep("engines", sources, (at.ENGINES,), settings, partial(build_engines, job))]


def _require_builder(job: Job, wanted: Sequence[ArtifactSpec]) -> None:
    from eightfold.export.tensorrt.engine_from_onnx import require_builder

    for target, precision in {(engine.target, engine.precision) for engine in wanted}:
        require_builder(target, precision, _engine_options(job, target))


def _is_rtx(target: str) -> bool:
    return parse_target(target).family == "rtx"


def _engine_options(job: Job, target: str) -> BuildOptions:
    """Those of the recipe. Where the builder measures kernels it keeps their times in the run directory, for the other
    engines and the next run."""
    section = job.recipe.engines
    options = section.options if section else BuildOptions()
    if section is None or options.timing_cache or _is_rtx(target):
        return options
    return options.model_copy(update={"timing_cache": job.path(at.TIMING_CACHE)})


def _source_of(engine: ArtifactSpec) -> ArtifactSpec:
    """The graph an engine is built from: FP32 for FP16, the target's Q/DQ graph for INT8."""
    if engine.precision == "int8":
        return replace(engine, format="onnx")
    return replace(engine, format="onnx", precision="fp32", target="any")


def build_engines(job: Job, _: Path) -> str:
    """Build every engine; returns a summary."""
    from eightfold.export.tensorrt.build import build_engine

    wanted = job.artifacts.engines
    # On these the builder's graph is checked for what 16 bits cannot hold.
    count, one_each = max(FEWEST_IMAGES, *(engine.batch for engine in wanted)), {each.size: each for each in wanted}
    images = {size: job.first_test_images(count, job.fed_to(engine)) for size, engine in one_each.items()}
    with atomic_directory(job.path(at.ENGINES)) as folder:
        for engine in track(wanted, "building engines"):
            source = job.path(_source_of(engine).path)
            output = folder / Path(engine.path).name
            build_engine(
                source,
                output,
                target=engine.target,
                precision=engine.precision,
                options=_engine_options(job, engine.target),
                inputs={job.networks.input_name: images[engine.size]},
            )
    return f"{len(wanted)} engines for {', '.join(dict.fromkeys(engine.target for engine in wanted))}"
