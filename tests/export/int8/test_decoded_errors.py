"""Decoded answers of two graphs compared: boxes lost, new, of another class; scores that move; classes that flip."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import eightfold as ef
from eightfold.export.int8.decoded_errors import decoded_errors
from eightfold.export.int8.quantize import LossyInt8Warning
from eightfold.runtime.bundle.manifest import Task
from tests.export.int8.graphs import ROWS, answers, random, saved, weights

YOLO = Task(kind="detect", decode="yolo-boxes", labels=("a", "b"), options={"score_threshold": 0.3})
SIZE = (100, 100)


def flat(boxes: list[list[float]]) -> dict[str, Any]:
    """(1, 6, n) of boxes given as centre, size and two scores."""
    return {"y": np.array(boxes, np.float32).T[None]}


BEFORE = flat([[20, 20, 10, 10, 0.9, 0], [50, 50, 20, 20, 0.1, 0.8], [80, 80, 10, 10, 0.72, 0], [20, 80, 9, 9, 0.4, 0]])


@pytest.mark.parametrize(
    ("after", "kept", "flipped", "added", "shift"),
    [
        (BEFORE, 4, 0, 0, 0.0),
        (flat([[20, 20, 10, 10, 0.9, 0], [50, 50, 20, 20, 0.1, 0.8], [80, 80, 10, 10, 0.53, 0]]), 3, 0, 0, 0.19),
        (flat([[21, 20, 10, 10, 0.9, 0], [50, 50, 20, 20, 0.8, 0.1]]), 1, 1, 0, 0.0),
        (flat([[20, 20, 10, 10, 0.9, 0], [50, 20, 9, 9, 0.9, 0]]), 1, 0, 1, 0.0),
        (flat([[20, 20, 10, 10, 0.1, 0]]), 0, 0, 0, 0.0),
    ],
)
def test_boxes(after: dict[str, Any], kept: int, flipped: int, added: int, shift: float) -> None:
    found = decoded_errors(YOLO, [BEFORE, BEFORE], [after, BEFORE], SIZE)
    assert found is not None
    assert (found.answers, found.kept, found.flipped, found.added) == (8, kept + 4, flipped, added)
    assert found.largest_shift == pytest.approx(shift, abs=1e-6)
    assert found.fair == (kept == 4)
    assert f"{kept + 4} of 8 boxes stay" in found.describe()


def test_classes() -> None:
    known = {"y": np.log(np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], np.float32))}
    seen = {"y": np.log(np.array([[0.7, 0.3], [0.8, 0.2], [0.5, 0.5]], np.float32))}
    found = decoded_errors(Task(kind="classify", decode="classify", labels=("a", "b")), [known], [seen], SIZE)
    assert found is not None
    assert (found.answers, found.kept, found.flipped) == (3, 2, 1)
    assert found.mean_shift == pytest.approx(0.1, abs=1e-6)


def test_outputs_that_the_decoder_does_not_read_are_not_compared() -> None:
    other = {"y": np.zeros((1, 3), np.float32)}
    assert decoded_errors(YOLO, [other], [other], SIZE) is None


def test_quantize_tells_what_the_decoder_gives(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="scores"),
    ]
    path = saved(tmp_path / "a.onnx", nodes, weights(w=random(16, 4, 3, 3), v=random(16, 5)), {"y": (1, 5)})
    ranges = ef.calibrate(path, ROWS, None, method="minmax")
    task = Task(kind="classify", decode="classify", labels=tuple("abcde"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossyInt8Warning)
        written, report = ef.quantize(path, ranges, tmp_path / "q.onnx", form="qdq", images=ROWS, task=task)
    expected, found = (answers(each, ROWS[:16])["y"][:, 0].argmax(axis=1) for each in (path, written))
    assert report.decoded is not None
    assert report.decoded.kept == pytest.approx(int((expected == found).sum()), abs=1)
    assert any("16 classes stay" in note for note in report.step.notes)
