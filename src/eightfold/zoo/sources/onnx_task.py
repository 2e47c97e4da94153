"""The likely task and preprocessing of an ONNX file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.guess_task import guess_task
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size

if TYPE_CHECKING:
    import onnx


def task_of_graph(model: onnx.ModelProto, size: Size) -> Task:
    """The likely task of a graph for images of (height, width); see `guess_task`."""
    outputs = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in model.graph.output]
    names = next((entry.value for entry in model.metadata_props if entry.key == "names"), "")
    return guess_task(outputs, size, names)


def recorded_size(model: onnx.ModelProto) -> Size | None:
    """(height, width) that Ultralytics writes into the metadata of a file, as "imgsz"; None where there is none."""
    text = next((entry.value for entry in model.metadata_props if entry.key == "imgsz"), "")
    found = [int(number) for number in re.findall(r"\d+", text)]
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def preprocess_of_task(task: Task, preprocess: Preprocess) -> Preprocess:
    """Detectors keep the shape of objects: letterbox. Others are stretched by default."""
    return preprocess.model_copy(update={"resize": "letterbox"}) if task.kind == "detect" else preprocess
