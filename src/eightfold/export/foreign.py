"""Any network, straight into a bundle: a torch module or an ONNX file from anywhere, at the batches asked for."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.calib.images import ImageSet, open_images
from eightfold.calib.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.export.batches import DEFAULT_TOLERANCE, export_batches
from eightfold.export.bundle import onnx_artifact, write_bundle
from eightfold.export.decode_step import put_decoder_in
from eightfold.export.detections import Form, form_for
from eightfold.export.file_source import image_input
from eightfold.export.in_graph import pixels_for, put_preprocess_in, require_pixels_taken
from eightfold.export.onnx_files import DTYPE_OF_ELEM_TYPE, external_files
from eightfold.export.trials import whole_runs
from eightfold.export.verify import Array
from eightfold.files import PathLike, sha256_of_file
from eightfold.runtime.manifest import Artifact, Step, Task

if TYPE_CHECKING:
    import torch

# Enough to reach what images reach, few enough to run at every batch.
COMPARED_IMAGES = 16
RAW_OUTPUTS = Task(kind="tensors", decode="tensors")


def export_bundle(
    source: torch.nn.Module | PathLike,
    output: PathLike,
    *,
    preprocess: Preprocess,
    batches: Sequence[int] = (1,),
    task: Task = RAW_OUTPUTS,
    name: str = "",
    opset: int | None = None,
    targets: Sequence[str] = (),
    preprocess_in_graph: bool = False,
    decode: bool = False,
    images: Any = None,
) -> Path:
    """Export a network at each batch, simplify and check it, and bundle it.

    Args:
        source: a torch module, or an ONNX file with one image input, whose dynamic axes are frozen. Where its channels
            come last, or where it takes uint8, images are prepared that way.
        output: a directory, or a file that ends in ".eightfold".
        preprocess: how images become the network's input; its size is the size that is exported.
        batches: images per run.
        task: what the outputs mean.
        name: of the bundle; the file's or class's name when empty.
        opset: version of ONNX's operator set. When None, a module's is 17, or the newest that all `targets` read; a
            file keeps its own where all `targets` read that.
        targets: what the bundle is for: "tensorrt:8.2", "cpu-x86", ...
        preprocess_in_graph: the network takes uint8 pixels (batch, height, width, channels); see `with_preprocess`.
        decode: a detector puts out final detections, by the rules and options of the task's decoder; in the form that
            all `targets` run, see `with_detections`.
        images: what `open_images` takes: a folder, a list, a COCO .json, a YOLO .yaml, arrays ... Each step is compared
            on up to 16 of them, beside constants, extremes and noise; on random values where there are none.

    Returns:
        `output`.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"batches {list(batches)}", allowed="whole numbers of at least 1")
    if preprocess_in_graph:
        require_pixels_taken(targets)
    form = form_for(targets) if decode else None
    if isinstance(source, str | Path):
        name = name or Path(source).stem
        preprocess = as_file_takes(Path(source), preprocess)
        origin = {"name": name, "sha256": sha256_of_file(source)}
    else:
        name = name or type(source).__name__
        origin = {"name": name}
    sample = None if images is None else open_images(images).sample(COMPARED_IMAGES)
    rows = _noise(preprocess, max(batches)) if sample is None else _prepared(sample, preprocess)
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        files = {batch: Path(folder) / f"{name}-b{batch}.onnx" for batch in sorted(set(batches))}
        steps = export_batches(source, files, images=rows, real=sample is not None, opset=opset, targets=targets)
        artifacts = []
        for batch, file in files.items():
            fed, read, further = _put_in_graph(file, _Feed(preprocess, sample, batch), task, preprocess_in_graph, form)
            made = (*steps[batch], *further)
            artifacts.append(
                onnx_artifact(file, id=file.stem, inside=f"onnx/{file.name}", variant="baseline", steps=made)
            )
            _require_rows(artifacts[-1])
        return write_bundle(
            output,
            name=name,
            task=read,
            preprocess=fed,
            artifacts=artifacts,
            files={f"onnx/{each.name}": each for file in files.values() for each in _with_weights(file)},
            provenance={"source": origin},
        )


@dataclasses.dataclass(frozen=True)
class _Feed:
    """How a file is fed, and the images that it is compared on, if any."""

    preprocess: Preprocess
    sample: ImageSet | None
    batch: int

    @property
    def rows(self) -> Array | None:
        return None if self.sample is None else whole_runs(_prepared(self.sample, self.preprocess), self.batch)


def _put_in_graph(
    file: Path, feed: _Feed, task: Task, pixels: bool, form: Form | None
) -> tuple[Preprocess, Task, list[Step]]:
    """Rewrite `file` in place; returns how it is to be fed and read now, and the steps on the way."""
    steps, size = [], (feed.preprocess.height, feed.preprocess.width)
    if pixels:
        after = dataclasses.replace(feed, preprocess=pixels_for(feed.preprocess))
        _, step = put_preprocess_in(file, feed.preprocess, tolerance=DEFAULT_TOLERANCE, images=after.rows)
        feed = after
        steps.append(step)
    if form is not None:
        rows = feed.rows
        inputs = None if rows is None else {image_input(file).name: rows}
        task, step = put_decoder_in(file, task, size, form=form, inputs=inputs)
        steps.append(step)
    return feed.preprocess, task, steps


def _with_weights(file: Path) -> list[Path]:
    return [file, *(file.with_name(name) for name in external_files(file))]


def as_file_takes(path: Path, preprocess: Preprocess) -> Preprocess:
    """`preprocess` with the layout and type of a file's input.

    Raises:
        ModelError: the input has another type, or no axes for images.
    """
    value = image_input(path)
    tensor, dims = value.type.tensor_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    dtype = {1: "float32", 2: "uint8"}.get(tensor.elem_type)
    if dtype is None or len(dims) != 4:
        seen = f"{DTYPE_OF_ELEM_TYPE.get(tensor.elem_type, 'other')} with {len(dims)} axes"
        raise ModelError(
            f"input {value.name!r} of {path} is {seen}",
            allowed="float32 or uint8 images (batch, channels, height, width) or (batch, height, width, channels)",
            remedy="put a Cast or a Reshape in front of it",
        )
    last = dims[3] == preprocess.channels != dims[1]
    return preprocess.model_copy(update={"layout": "nhwc" if last else "nchw", "dtype": dtype})


def _prepared(images: ImageSet, preprocess: Preprocess) -> Array:
    return np.stack([preprocess(image) for image in images])


def _noise(preprocess: Preprocess, count: int) -> Array:
    size, rng = (preprocess.height, preprocess.width), np.random.default_rng(0)
    shape = (preprocess.channels, *size) if preprocess.layout == "nchw" else (*size, preprocess.channels)
    if preprocess.dtype == "uint8":
        return rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return rng.random((count, *shape), dtype=np.float32)


def _require_rows(artifact: Artifact) -> None:
    for spec in artifact.outputs:
        if not spec.shape or spec.shape[0] != artifact.batch:
            raise ModelError(
                f"output {spec.name!r} has the shape {spec.shape} at batch {artifact.batch}",
                allowed="outputs whose first axis is the batch",
                remedy="cut the graph before the operator that mixes images",
            )
