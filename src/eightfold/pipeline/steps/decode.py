"""The step that puts a detector's decoder into its graphs, when all that looks at their raw outputs is done."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.job.artifacts import ArtifactSpec
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.job.step_keys import image_key
from eightfold.pipeline.steps.graph_files import library_versions, share, write_facts
from eightfold.progress import track
from eightfold.runtime.bundle.manifest import Step as ManifestStep


def decode_steps(job: Job) -> list[PipelineStep]:
    """Steps that put the decoder into the graphs."""
    if not job.recipe.export.decode:
        return []
    settings = {
        "task": job.task.section.model_dump(mode="json"),
        **image_key(job),
        "versions": library_versions(),
    }
    outputs = (*job.artifacts.onnx.files, at.facts_of(at.DECODED))
    inputs = (*job.artifacts.raw.files, at.DATA)
    return [PipelineStep("decode", inputs, outputs, settings, partial(decode_graphs, job))]


def decode_graphs(job: Job, _: Path) -> str:
    """From raw heads to graphs that put out detections, each compared with the runtime's decoder on test images."""
    pairs = list(zip(job.artifacts.raw, job.artifacts.onnx, strict=True))
    steps = {wanted.id: [_decode(job, raw, wanted)] for raw, wanted in track(pairs, "decoding in the graphs")}
    for weights in dict.fromkeys(wanted.weights for _, wanted in pairs):
        share(job, [wanted for _, wanted in pairs if wanted.weights == weights])
    write_facts(job, at.DECODED, steps)
    worst = max(step.max_abs_error or 0.0 for made in steps.values() for step in made)
    return f"{len(steps)} graphs put out detections, boxes at most {worst:.2g} pixels from the runtime's"


def _decode(job: Job, raw: ArtifactSpec, wanted: ArtifactSpec) -> ManifestStep:
    from eightfold.export.in_graph.decode_step import put_decoder_in
    from eightfold.export.verify.test_inputs import COMPARED_IMAGES, whole_runs
    from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx

    path = save_onnx(load_onnx(job.path(raw.path)), job.path(wanted.path))
    rows = whole_runs(job.first_test_images(COMPARED_IMAGES, job.fed_to(wanted)), wanted.batch)
    inputs = {job.networks.input_name: rows}
    return put_decoder_in(path, job.raw_outputs, wanted.size or job.image_size, inputs=inputs)[1]
