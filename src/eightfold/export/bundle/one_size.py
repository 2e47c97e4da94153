"""One network at one image size: a graph for each batch, with the bundle's preprocessing and decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ModelError
from eightfold.export.bundle.write import onnx_artifact
from eightfold.export.fixed_size.batches import DEFAULT_TOLERANCE, export_batches
from eightfold.export.fixed_size.file_inputs import FileInputs, image_input
from eightfold.export.in_graph.decode_step import put_decoder_in
from eightfold.export.in_graph.detections import Form
from eightfold.export.in_graph.in_graph import pixels_for, put_preprocess_in
from eightfold.export.verify.test_inputs import whole_runs
from eightfold.extras import installed
from eightfold.onnx_graph.onnx_files import external_files
from eightfold.runtime.backends import open_session
from eightfold.runtime.bundle.manifest import Artifact, Step, Task
from eightfold.runtime.postprocess import decoder_of

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class BundleRequest:
    """The options that hold for every image size; see `export_bundle`.

    Attributes:
        sample: the images that steps are compared on, if any.
        pixels: preprocessing goes into the graph.
        form: of the suppression, where the decoder goes into the graph.
    """

    batches: Sequence[int]
    task: Task
    opset: int | None = None
    targets: Sequence[str] = ()
    sample: ImageSet | None = None
    pixels: bool = False
    form: Form | None = None


RAW = "tensors"  # the decoder that reads any outputs


@dataclasses.dataclass(frozen=True)
class SizeArtifacts:
    """The artifacts of one image size, where their files lie by name in the bundle, and how they are fed and read."""

    artifacts: tuple[Artifact, ...]
    files: dict[str, Path]
    preprocess: Preprocess
    task: Task


def export_at_size(
    source: torch.nn.Module | FileInputs, preprocess: Preprocess, wanted: BundleRequest, *, folder: Path, stem: str
) -> SizeArtifacts:
    """Export a network at the size of `preprocess` for each batch, as `STEM-bBATCH.onnx` in `folder`.

    Raises:
        ModelError: the network does not run at that size, or an output mixes images.
        VerificationError: a graph differs from the source.
    """
    files = {batch: folder / f"{stem}-b{batch}.onnx" for batch in sorted(set(wanted.batches))}
    real = wanted.sample is not None
    # One more row than are run: it makes the pair of a stereo network differ at batch 1, too.
    rows = _prepared(wanted.sample, preprocess) if wanted.sample is not None else _noise(preprocess, max(files) + 1)
    steps = export_batches(source, files, images=rows, real=real, opset=wanted.opset, targets=wanted.targets)
    artifacts = []
    for batch, file in files.items():
        fed, read, further = _put_in_graph(file, _Feed(preprocess, wanted.sample, batch), wanted)
        made = (*steps[batch], *further)
        artifacts.append(onnx_artifact(file, id=file.stem, inside=f"onnx/{file.name}", variant="baseline", steps=made))
        _require_rows(artifacts[-1])
        if batch == min(files) and wanted.form is None:  # a decoder in the graph was compared with its own
            _require_decodable(file, read, fed)
    inside = {f"onnx/{each.name}": each for file in files.values() for each in _with_weights(file)}
    return SizeArtifacts(tuple(artifacts), inside, fed, read)


@dataclasses.dataclass(frozen=True)
class _Feed:
    """The inputs of a file, and the images that it is compared on, if any."""

    preprocess: Preprocess
    sample: ImageSet | None
    batch: int

    @property
    def rows(self) -> Array | None:
        return None if self.sample is None else whole_runs(_prepared(self.sample, self.preprocess), self.batch)


def _put_in_graph(file: Path, feed: _Feed, wanted: BundleRequest) -> tuple[Preprocess, Task, list[Step]]:
    """Rewrite `file` in place; returns how it is to be fed and read now, and the steps on the way."""
    steps, task, size = [], wanted.task, (feed.preprocess.height, feed.preprocess.width)
    if wanted.pixels:
        after = dataclasses.replace(feed, preprocess=pixels_for(feed.preprocess))
        _, step = put_preprocess_in(file, feed.preprocess, tolerance=DEFAULT_TOLERANCE, images=after.rows)
        feed = after
        steps.append(step)
    if wanted.form is not None:
        rows = feed.rows
        inputs = None if rows is None else {image_input(file).name: rows}
        task, step = put_decoder_in(file, task, size, form=wanted.form, inputs=inputs)
        steps.append(step)
    return feed.preprocess, task, steps


def _with_weights(file: Path) -> list[Path]:
    return [file, *(file.with_name(name) for name in external_files(file))]


def _prepared(images: ImageSet, preprocess: Preprocess) -> Array:
    return np.stack(list(images.prepared(preprocess)))


def _noise(preprocess: Preprocess, count: int) -> Array:
    size, rng = (preprocess.height, preprocess.width), np.random.default_rng(0)
    shape = (preprocess.channels, *size) if preprocess.layout == "nchw" else (*size, preprocess.channels)
    if preprocess.dtype == "uint8":
        return rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return rng.random((count, *shape), dtype=np.float32)


def _require_decodable(file: Path, task: Task, preprocess: Preprocess) -> None:
    """Run a graph once and decode its answer, so that a bundle of a head that its decoder cannot read is not made."""
    if task.decode == RAW or not installed("onnxruntime"):
        return
    session = open_session(file, "onnxruntime")
    if len(session.inputs) != 1:
        return
    slot, (spec,) = session.new_slot(), session.inputs
    slot.run_on({spec.name: _noise(preprocess, spec.shape[0])})
    place = preprocess.place(preprocess.height, preprocess.width)
    try:
        decoder_of(task)(slot.outputs, [place] * spec.shape[0])
    except BundleError as error:
        raise ModelError(
            f"the decoder {task.decode!r} cannot read this network: {error.seen}",
            allowed=error.allowed,
            remedy="name the decoder of its head, see docs/decoders.md, or tensors for outputs as they are",
        ) from None


def _require_rows(artifact: Artifact) -> None:
    for spec in artifact.outputs:
        if not spec.shape or spec.shape[0] != artifact.batch:
            raise ModelError(
                f"output {spec.name!r} has the shape {spec.shape} at batch {artifact.batch}",
                allowed="outputs whose first axis is the batch",
                remedy="cut the graph before the operator that mixes images, and leave out outputs that are constants",
            )
