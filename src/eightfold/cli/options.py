"""Parameters and small values that several sub-commands read from the command line."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.errors import UsageError, why_unread
from eightfold.json_types import JsonDict

if TYPE_CHECKING:
    from eightfold.arrays import Array
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.onnx_graph.tensor_specs import TensorSpec
    from eightfold.runtime.bundle.manifest import Task

# Parameters that several commands share.
BundlePath = Annotated[Path, typer.Argument(help="A bundle: a directory or an .eightfold file.")]
PublicKey = Annotated[Path | None, typer.Option(help="Public key that must have signed the bundle.")]
ImagesArgument = Annotated[str, typer.Argument(help="Folder, list file, glob pattern, COCO .json or YOLO .yaml.")]
PreprocessOfImages = Annotated[Path, typer.Option(help="JSON file of the Preprocess of the images.")]
FilePreprocess = Annotated[Path | None, typer.Option(help="JSON of the Preprocess of those images.")]
GpuNumber = Annotated[int, typer.Option(min=0, help="Number of the GPU.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
# Runs of a network on given images: enough to find what 16 bits cannot hold, few enough not to wait for.
RUNS = 4


def terminal_width() -> int | None:
    """Characters per line: the terminal's, or COLUMNS. None for a file or a pipe, whose lines are not wrapped."""
    return shutil.get_terminal_size((0, 0)).columns or None


def typed(*words: str | Path) -> str:
    """A command as it can be typed into a shell.

    >>> typed("eightfold", "inspect", "my bundle")
    "eightfold inspect 'my bundle'"
    """
    return shlex.join(map(str, words))


def image_size(text: str) -> tuple[int, int]:
    """(height, width) of 'SIDE' or 'HEIGHTxWIDTH'.

    >>> image_size("480x640")
    (480, 640)
    """
    from eightfold.calib.images.preprocess_rules import LARGEST_SIDE

    try:
        sides = [int(part) for part in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or not all(1 <= side <= LARGEST_SIDE for side in sides):
        allowed = f"SIDE or HEIGHTxWIDTH, e.g. 224 or 480x640, of up to {LARGEST_SIDE} pixels"
        raise UsageError(f"--size {text}", allowed=allowed)
    return sides[0], sides[-1]


def named_values(texts: Sequence[str]) -> JsonDict:
    """Name -> value of each 'NAME=JSON'.

    >>> named_values(["scale=[1.0, 0.5]"])
    {'scale': [1.0, 0.5]}
    """
    pairs = [text.rpartition("=")[::2] for text in texts]
    try:
        found = {name: json.loads(value) for name, value in pairs}
    except json.JSONDecodeError:
        found = {"": None}
    if not all(found):
        raise UsageError(
            f"--constant {' --constant '.join(texts)}", allowed="NAME=VALUE, e.g. scale=[1.0,1.0] or limit=0.5"
        )
    return found


def inputs_from_images(
    specs: Sequence[TensorSpec], images: str, preprocess: Path | Preprocess, runs: int = 1
) -> dict[str, Array]:
    """The first images of a source, prepared as the only input of a network, enough for `runs` calls."""
    import numpy as np

    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.verify.test_inputs import whole_runs

    if len(specs) > 1:
        raise UsageError(f"--images for {len(specs)} inputs", allowed="networks with one image input")
    name, batch = (specs[0].name, specs[0].shape[0]) if specs else ("images", 1)
    found = open_images(images)
    prepare = preprocess if isinstance(preprocess, Preprocess) else Preprocess.load(preprocess)
    rows = np.stack(list(found.subset(range(min(len(found), runs * batch))).prepared(prepare)))
    return {name: whole_runs(rows, batch)}


def require_both(images: str | None, preprocess: Path | None) -> None:
    """Raises UsageError if one of the two options is missing."""
    if (images is None) != (preprocess is None):
        raise UsageError("one of --images and --preprocess", allowed="both or none: how an image becomes the input")


def file_inputs(onnx: Path, images: str | None, preprocess: Path | None) -> dict[str, Array] | None:
    """As `inputs_from_images` for an .onnx file. Raises UsageError if one of the two options is missing."""
    from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs

    require_both(images, preprocess)
    if images is None or preprocess is None:
        return None
    return inputs_from_images(tensor_specs(load_onnx(onnx, external=False))[0], images, preprocess, RUNS)


def task_named(text: str) -> Task:
    """The task of a decoder's name, or of a JSON file with kind, decode, labels and options.

    >>> task_named("segment").kind
    'segment'
    """
    from pydantic import ValidationError

    from eightfold.runtime.bundle.manifest import Task
    from eightfold.runtime.postprocess import decoder_class, decoder_of
    from eightfold.values import first_fault

    if not text.endswith(".json"):
        return Task(kind=decoder_class(text).kind, decode=text)
    try:
        task = Task.model_validate_json(Path(text).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--task {text} ({why_unread(error)})", allowed="a decoder's name, or a JSON file") from None
    except ValidationError as error:
        allowed = ", ".join(Task.model_fields)
        raise UsageError(f"--task {text}: {first_fault(error)}", allowed=f"an object with {allowed}") from None
    decoder_of(task)
    return task
