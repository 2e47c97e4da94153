"""Guesses what the outputs of an ONNX file mean, from its metadata and the shapes of its outputs."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import CLASSIFY, RAW_OUTPUTS

if TYPE_CHECKING:
    import onnx

Dims = Sequence[int]
STRIDES = (8, 16, 32)
# A map has at least this share of the image's side; coarser ones are features.
MAP_SHARE = 8
END_TO_END = 6


def task_of_graph(model: onnx.ModelProto, size: Size) -> Task:
    """The likely task of a graph for images of (height, width).

    One output (batch, classes) is a classifier's. One of (batch, 4 + classes, N) or turned round, where N is the number
    of cells at strides 8, 16 and 32, is that of a YOLO as Ultralytics exports it; (batch, N, 6) ends with its own
    suppression. One map of at least two channels is a segmenter's. Everything else stays tensors.
    """
    outputs = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.output]
    labels = _labels(model)
    if len(outputs) != 1:
        return RAW_OUTPUTS
    task = _task_of(outputs[0], size)
    return task.model_copy(update={"labels": labels}) if task.kind != "tensors" else task


def _task_of(dims: Dims, size: Size) -> Task:
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    if len(dims) == 2 and dims[1] > 1:
        return CLASSIFY
    if len(dims) == 3 and dims[2] == END_TO_END:
        return Task(kind="detect", decode="end-to-end")
    if len(dims) == 3 and dims[2] == cells and dims[1] > 4:
        return Task(kind="detect", decode="yolo-boxes")
    if len(dims) == 3 and dims[1] == cells and dims[2] > 4:
        return Task(kind="detect", decode="yolo-boxes", options={"channels_last": True})
    if len(dims) == 4 and dims[1] > 1 and dims[2] * MAP_SHARE >= size[0]:
        return Task(kind="segment", decode="segment")
    return RAW_OUTPUTS


def _labels(model: onnx.ModelProto) -> tuple[str, ...]:
    """The names of classes that Ultralytics writes into its files."""
    text = metadata(model).get("names", "")
    try:
        names = ast.literal_eval(text) if text else {}
    except (ValueError, SyntaxError):
        return ()
    return tuple(str(names[key]) for key in sorted(names)) if isinstance(names, dict) else ()


def metadata(model: onnx.ModelProto) -> Mapping[str, str]:
    """The metadata properties of a file."""
    return {entry.key: entry.value for entry in model.metadata_props}


def preprocess_of_task(task: Task, preprocess: Preprocess) -> Preprocess:
    """Detectors keep the shape of objects: letterbox. Others are stretched, until somebody says otherwise."""
    return preprocess.model_copy(update={"resize": "letterbox"}) if task.kind == "detect" else preprocess
