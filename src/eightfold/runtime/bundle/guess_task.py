"""Guesses the meaning of a network's outputs from their shapes, where nothing states it."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size

RAW_OUTPUTS = Task(kind="tensors", decode="tensors")
STRIDES = (8, 16, 32)
# A map has at least this share of the image's side; coarser ones are features.
MAP_SHARE = 8
END_TO_END = 6


def guess_task(outputs: Sequence[Sequence[int]], size: Size, names: str = "") -> Task:
    """The likely task of a network for images of (height, width).

    One output (batch, classes) is a classifier's. One of (batch, 4 + classes, N) or turned round, where N is the number
    of cells at strides 8, 16 and 32, is that of a YOLO as Ultralytics exports it; (batch, N, 6) ends with its own
    suppression. One map of at least two channels is a segmenter's. Everything else stays tensors.

    Args:
        outputs: their shapes; 0 for a length that is not known.
        names: of the classes, as Ultralytics writes them into a file's metadata: "{0: 'person', ...}".

    >>> guess_task([(1, 84, 2100)], (320, 320)).decode
    'yolo-boxes'
    """
    if len(outputs) != 1:
        return RAW_OUTPUTS
    task = _task_of(outputs[0], size)
    return task.model_copy(update={"labels": _labels(names)}) if task.kind != "tensors" else task


def _task_of(dims: Sequence[int], size: Size) -> Task:
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES)
    if len(dims) == 2 and dims[1] > 1:
        return Task(kind="classify", decode="classify")
    if len(dims) == 3 and dims[2] == END_TO_END:
        return Task(kind="detect", decode="end-to-end")
    if len(dims) == 3 and dims[2] == cells and dims[1] > 4:
        return Task(kind="detect", decode="yolo-boxes")
    if len(dims) == 3 and dims[1] == cells and dims[2] > 4:
        return Task(kind="detect", decode="yolo-boxes", options={"channels_last": True})
    if len(dims) == 4 and dims[1] > 1 and dims[2] * MAP_SHARE >= size[0]:
        return Task(kind="segment", decode="segment")
    return RAW_OUTPUTS


def _labels(text: str) -> tuple[str, ...]:
    try:
        names = ast.literal_eval(text) if text else {}
    except (ValueError, SyntaxError):
        return ()
    return tuple(str(names[key]) for key in sorted(names)) if isinstance(names, dict) else ()
