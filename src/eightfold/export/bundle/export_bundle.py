"""Any network, straight into a bundle: a torch module or an ONNX file from anywhere, at the sizes and batches asked
for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.calib.images.images import ImageSource, open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.export.bundle.one_size import BundleRequest, export_at_size
from eightfold.export.bundle.output_location import require_bundle_output
from eightfold.export.bundle.write import write_bundle
from eightfold.export.fixed_size.file_inputs import ONE_INPUT, FileInputs
from eightfold.export.in_graph.detections import form_for
from eightfold.export.in_graph.in_graph import require_pixels_taken
from eightfold.export.verify.module_runs import input_names
from eightfold.export.verify.test_inputs import COMPARED_IMAGES, NOT_FINITE
from eightfold.files import PathLike, sha256_of_file
from eightfold.json_types import JsonDict, JsonMapping
from eightfold.runtime.bundle.manifest import Step, Task
from eightfold.runtime.bundle.sizes import Size, size_of, size_text
from eightfold.scratch import scratch_folder

if TYPE_CHECKING:
    import torch

RAW_OUTPUTS = Task(kind="tensors", decode="tensors")


def export_bundle(
    source: torch.nn.Module | PathLike,
    output: PathLike,
    *,
    preprocess: Preprocess,
    batches: Sequence[int] = (1,),
    sizes: Sequence[int | Size] = (),
    task: Task = RAW_OUTPUTS,
    name: str = "",
    opset: int | None = None,
    targets: Sequence[str] = (),
    preprocess_in_graph: bool = False,
    decode: bool = False,
    images: ImageSource | None = None,
    constants: JsonMapping | None = None,
) -> Path:
    """Export a network at each image size and batch, simplify and check it, and bundle it.

    Args:
        source: a torch module, or an ONNX file, whose dynamic axes are frozen. Where its channels come last, or where
            it takes uint8, images are prepared that way. A bundle of a network with several inputs (a module's are
            images of one shape) runs on tensors: `Predictor.run`.
        output: a directory, or a file that ends in ".eightfold".
        preprocess: how images become the network's input; its size is exported, and runs where none is asked for.
        batches: images per run.
        sizes: further image sizes, one side or (height, width), at which the same rules hold; see `Preprocess.at_size`.
            What the graphs of all sizes and batches have in common is stored once.
        task: what the outputs mean.
        name: of the bundle; the file's or class's name when empty.
        opset: version of ONNX's operator set. When None, a module's is that of `export_onnx`; a file keeps its own
            where all `targets` read that.
        targets: what the bundle is for: "tensorrt:8.2", "cpu-x86", ...
        preprocess_in_graph: the network takes uint8 pixels (batch, height, width, channels); see `with_preprocess`.
        decode: a detector puts out final detections, by the rules and options of the task's decoder; in the form that
            all `targets` run, see `with_detections`.
        images: what `open_images` takes: a folder, a list, a COCO .json, a YOLO .yaml, arrays ... Each step is compared
            on up to 16 of them, beside constants, extremes and noise; on random values where there are none. Of
            several inputs each that takes such images gets them, in another order.
        constants: input of the ONNX file -> its value from now on, a number or an array, for one image or for all: a
            scale, a threshold.

    Returns:
        `output`.

    Raises:
        ModelError: the network does not run at such a size, cannot be exported, or a target cannot read it.
        UsageError: the task, sizes or constants do not fit the network.
        VerificationError: a graph differs from the source beyond the tolerance.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"batches {list(batches)}", allowed="whole numbers of at least 1")
    require_bundle_output(output, reads=[source] if isinstance(source, str | Path) else ())
    if preprocess_in_graph:
        require_pixels_taken(targets)
    form = form_for(targets) if decode else None
    origin, name, stated = _origin(source, name, constants)
    if isinstance(origin, FileInputs):
        preprocess = as_file_takes(origin, preprocess)
    if preprocess_in_graph or decode:
        _require_one_input(origin)
    rules = [preprocess, *_at_sizes(preprocess, sizes, task)]
    if isinstance(origin, FileInputs) and len(rules) > 1:
        _require_free_size(origin)
    sample = None if images is None else open_images(images).sample(COMPARED_IMAGES)
    wanted = BundleRequest(batches, task, opset, targets, sample, preprocess_in_graph, form)
    with scratch_folder() as folder:
        made = [
            export_at_size(origin, each, wanted, folder=folder, stem=_stem(name, each, among=len(rules)))
            for each in rules
        ]
        _warn_of_lost(name, [step for each in made for artifact in each.artifacts for step in artifact.steps])
        return write_bundle(
            output,
            name=name,
            task=made[0].task,
            preprocess=made[0].preprocess,
            artifacts=[artifact for each in made for artifact in each.artifacts],
            files={inside: file for each in made for inside, file in each.files.items()},
            provenance={"source": stated},
        )


def _warn_of_lost(name: str, steps: Iterable[Step]) -> None:
    """A network that answers with NaN agrees with whatever is made of it."""
    lost = next((note for step in steps for note in step.notes if NOT_FINITE in note), "")
    if lost:
        warnings.warn(f"{name}: {lost}; check its weights", stacklevel=3)


def _origin(
    source: torch.nn.Module | PathLike, name: str, constants: JsonMapping | None
) -> tuple[torch.nn.Module | FileInputs, str, JsonDict]:
    """The network, its name, and its entry in the bundle's provenance."""
    if isinstance(source, str | Path):
        stated: JsonDict = {"name": name or Path(source).stem, "sha256": sha256_of_file(source)}
        if constants:
            stated["constants"] = {key: np.asarray(value).tolist() for key, value in constants.items()}
        return FileInputs.of(Path(source), constants), stated["name"], stated
    if constants:
        raise UsageError(f"constant {next(iter(constants))!r} for a torch module", allowed="inputs of an ONNX file")
    name = name or type(source).__name__
    return source, name, {"name": name}


def _at_sizes(preprocess: Preprocess, sizes: Sequence[int | Size], task: Task) -> list[Preprocess]:
    """The rules at each further size, once."""
    default = (preprocess.height, preprocess.width)
    further = [size for size in dict.fromkeys(map(size_of, sizes)) if size != default]
    if further and "grids" in task.options:
        raise UsageError(
            f"decoder {task.decode!r} at {size_text(default)} and {size_text(further[0])}",
            allowed="one size, which its option 'grids' is for",
            remedy="make a bundle for each size",
        )
    return [preprocess.at_size(*size) for size in further]


def _require_one_input(origin: torch.nn.Module | FileInputs) -> None:
    """Preprocessing goes into a graph with one image input only."""
    if isinstance(origin, FileInputs):
        origin.require_one()
    elif len(names := input_names(origin)) > 1:
        raise ModelError(f"{type(origin).__name__} has {len(names)} inputs ({', '.join(names)})", allowed=ONE_INPUT)


def _require_free_size(inputs: FileInputs) -> None:
    inputs.require_one()
    size = inputs.image_size
    if size is not None:
        raise UsageError(
            f"several sizes of {inputs.path}, which is fixed at {size_text(size)}",
            allowed=size_text(size),
            remedy="export the network again with dynamic height and width",
        )


def _stem(name: str, preprocess: Preprocess, *, among: int) -> str:
    return f"{name}-{size_text((preprocess.height, preprocess.width))}" if among > 1 else name


def as_file_takes(inputs: FileInputs, preprocess: Preprocess) -> Preprocess:
    """`preprocess` with the layout and type of a file's image input.

    Raises:
        ModelError: the input has another type, or no axes for images.
    """
    image = inputs.image
    if not image.takes_images:
        raise ModelError(
            f"input {image.name!r} of {inputs.path} is {image.dtype} with {len(image.dims)} axes",
            allowed="float32 or uint8 images (batch, channels, height, width) or (batch, height, width, channels)",
            remedy="put a Cast or a Reshape in front of it",
        )
    if image.dtype == "uint8" and preprocess.pixels != "uint8":
        raise ModelError(
            f"input {image.name!r} of {inputs.path} is uint8 and the Preprocess gives {preprocess.pixels} pixels",
            allowed="a float32 input for them",
        )
    last = image.dims[3] == preprocess.channels != image.dims[1]
    return preprocess.model_copy(update={"layout": "nhwc" if last else "nchw", "dtype": image.dtype})
