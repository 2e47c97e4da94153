"""The steps from a torch module to files that other machines run: ONNX here, INT8 and engines from there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.export.verify.test_inputs import COMPARED_IMAGES
from eightfold.export.verify.verify import Tolerance
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import VARIANTS, ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.job.step_keys import image_key, model_key
from eightfold.pipeline.steps.decode import decode_steps
from eightfold.pipeline.steps.engine import engine_steps
from eightfold.pipeline.steps.graph_files import library_versions, share, write_facts
from eightfold.pipeline.steps.int8 import int8_steps
from eightfold.runtime.bundle.manifest import Step as ManifestStep

if TYPE_CHECKING:
    from torch import nn

    from eightfold.export.fixed_size.file_inputs import FileInputs


def export_steps(job: Job) -> list[PipelineStep]:
    """Steps that export, quantize and build."""
    from eightfold.export.in_graph.in_graph import require_pixels_taken
    from eightfold.export.opset.opsets import opsets_for

    recipe = job.recipe
    if recipe.export.preprocess == "in-graph":
        require_pixels_taken(recipe.targets)
    baseline = job.networks.baseline
    sources = {"baseline": (baseline,), "pruned": (at.PRUNED, baseline)}
    settings = {
        **model_key(job),
        **image_key(job),
        "export": recipe.export.model_dump(),
        "opsets": list(opsets_for(recipe.targets)),
        "versions": library_versions(),
    }
    exports = [
        PipelineStep(
            f"export {variant}",
            (*sources[variant], at.DATA),
            (*job.artifacts.floats[variant].files, at.facts_of(variant)),
            settings,
            partial(export_variant, job, variant),
        )
        for variant in VARIANTS
    ]
    return [
        *exports,
        *int8_steps(job),
        *decode_steps(job),
        *engine_steps(job),
    ]


def export_variant(job: Job, variant: str, _: Path) -> str:
    """Export and simplify at every image and batch size, and compare each file with torch on test images."""
    graphs, model = job.artifacts.floats[variant], job.networks.exported(variant)
    steps: dict[str, tuple[ManifestStep, ...]] = {}
    for size in job.artifacts.sizes:
        steps |= _export_size(job, model, [each for each in graphs if each.size == size])
    share(job, graphs)
    write_facts(job, variant, steps)
    worst = max(step.max_rel_error or 0.0 for found in steps.values() for step in found)
    return f"{len(steps)} graphs, largest relative error {worst:.1g}"


def _least_opset(model: nn.Module | FileInputs, targets: Sequence[str]) -> int | None:
    """The opset that INT8 needs, where a file's own is older and the targets read it; None: the export chooses."""
    from torch import nn

    from eightfold.export.opset.opsets import newest_opset
    from eightfold.onnx_graph.graph import MIN_OPSET
    from eightfold.onnx_graph.onnx_files import load_onnx, opset_of

    if isinstance(model, nn.Module) or opset_of(load_onnx(model.path, external=False)) >= MIN_OPSET:
        return None
    return min([MIN_OPSET, *map(newest_opset, targets)])


def _export_size(
    job: Job, model: nn.Module | FileInputs, graphs: Sequence[ArtifactSpec]
) -> dict[str, tuple[ManifestStep, ...]]:
    """The graphs of one image size; the steps of each by its id."""
    from eightfold.export.fixed_size.batches import export_batches
    from eightfold.export.in_graph.in_graph import put_preprocess_in
    from eightfold.export.verify.test_inputs import whole_runs

    recipe, tolerance = job.recipe, Tolerance(max_rel_error=job.recipe.export.tolerance)
    plain, fed = recipe.preprocess.at_size(*(graphs[0].size or job.image_size)), job.fed_to(graphs[0])
    steps = export_batches(
        model,
        {each.batch: job.path(each.path) for each in graphs},
        images=job.first_test_images(COMPARED_IMAGES, plain),
        opset=recipe.export.opset or _least_opset(model, recipe.targets),
        targets=recipe.targets,
        tolerance=tolerance,
    )
    if recipe.export.preprocess == "in-graph":
        pixels = job.first_test_images(COMPARED_IMAGES, fed)
        for each in graphs:
            rows = whole_runs(pixels, each.batch)
            step = put_preprocess_in(job.path(each.path), plain, tolerance=tolerance, images=rows)[1]
            steps[each.batch] = (*steps[each.batch], step)
    return {each.id: steps[each.batch] for each in graphs}
