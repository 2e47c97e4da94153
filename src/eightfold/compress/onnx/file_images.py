"""Images for a graph: as many in a batch as it takes, in its own layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eightfold.compress.onnx.inputs import example_inputs, is_image
from eightfold.compress.onnx.module import OnnxModule
from eightfold.compress.types import Batches
from eightfold.errors import UsageError
from eightfold.files import PathLike

if TYPE_CHECKING:
    from eightfold.calib.images.preprocess import Preprocess

BATCH = 8
Images = PathLike | Tensor | Iterable[Any]


def batches_for(
    module: OnnxModule,
    path: Path,
    images: Images,
    *,
    preprocess: Preprocess | None,
    size: tuple[int, int] | None,
    count: int,
    seed: int,
) -> Batches:
    """Positional arguments of one call of `module` each.

    Args:
        path: of the graph.
        images: a folder of images; a tensor or array [n, ...] of prepared rows; or batches of inputs.
        preprocess: how an image of a folder becomes a row; by default scaled to [0, 1] and normalised as for ImageNet.

    Raises:
        UsageError: the graph takes no images, or they are too few for its batch.
    """
    if isinstance(images, str | Path):
        images = _rows_of_folder(module, path, images, preprocess, size, count, seed)
    if isinstance(images, Tensor | np.ndarray):
        return _split(module, torch.as_tensor(images), path)
    found = [each if isinstance(each, tuple) else (each,) for each in images]
    return [tuple(torch.as_tensor(value) for value in each) for each in found]


def require_image_input(module: OnnxModule, path: Path) -> int:
    """The place of the first input that takes images.

    Raises:
        UsageError: there is none.
    """
    for place, each in enumerate(module.inputs):
        if is_image(each):
            return place
    shown = ", ".join(
        f"{each.name} {list(each.shape)} {str(each.dtype).removeprefix('torch.')}" for each in module.inputs
    )
    raise UsageError(
        f"{path} takes no images (inputs: {shown})",
        allowed="an input of floats or bytes with four dimensions",
        remedy="call ef.prune from Python with example_inputs and batches of its inputs as images",
    )


def _rows_of_folder(
    module: OnnxModule,
    path: Path,
    folder: PathLike,
    preprocess: Preprocess | None,
    size: tuple[int, int] | None,
    count: int,
    seed: int,
) -> Tensor:
    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.bundle.export_bundle import as_file_takes
    from eightfold.export.fixed_size.file_inputs import FileInputs

    require_image_input(module, path)
    if preprocess is None:
        inputs = FileInputs.of(path)
        height, width = inputs.image_size or size or (224, 224)
        preprocess = as_file_takes(inputs, Preprocess(height=height, width=width))
    chosen = open_images(folder).sample(count, seed=seed)
    return torch.from_numpy(np.stack(list(chosen.prepared(preprocess))))


def _split(module: OnnxModule, rows: Tensor, path: Path) -> Batches:
    """Whole batches, where the graph fixes their size; other inputs get the same values in each."""
    place = require_image_input(module, path)
    fixed = module.inputs[place].shape[0]
    batch = fixed or BATCH
    parts = [part for part in torch.split(rows, batch) if len(part) == batch or not fixed]
    if not parts:
        raise UsageError(f"{len(rows)} images for {path}, whose batch is {fixed}", allowed=f"at least {fixed}")
    made = []
    for part in parts:
        others = list(example_inputs(module.inputs, size=_size_of(part), batch=len(part)))
        made.append((*others[:place], part.to(module.inputs[place].dtype), *others[place + 1 :]))
    return made


def _size_of(rows: Tensor) -> tuple[int, int]:
    """(height, width) of rows in either layout."""
    sides = rows.shape[1:3] if rows.shape[3] in (1, 3, 4) and rows.shape[1] not in (1, 3, 4) else rows.shape[2:4]
    return int(sides[0]), int(sides[1])
