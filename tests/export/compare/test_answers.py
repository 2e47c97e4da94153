"""Answers of a network and of its INT8 form side by side: what one cosine over a whole detector hides."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import eightfold as ef
from eightfold.errors import UsageError
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.compare.comparison import Comparison
from eightfold.export.int8.quantize import LossyInt8Warning
from eightfold.runtime.bundle.manifest import Task
from tests.export.int8.graphs import ROWS, answers, detector, random, saved, sqnr_db, weights

CLASSES = Task(kind="classify", decode="classify", labels=tuple("abcde"))


def quantized(path: Path, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossyInt8Warning)
        ranges = ef.calibrate(path, ROWS, None, method="minmax")
        written, _ = ef.quantize(path, ranges, path.with_suffix(".int8.onnx"), form="qdq", **options)
    return Path(written)


def test_scores_that_boxes_hide_are_told_with_the_layer_that_costs_them(tmp_path: Path) -> None:
    path = detector(tmp_path / "a.onnx")
    written, row = quantized(path), ROWS[:1]
    found = compare_artifacts(path, written, inputs={"x": row})
    expected, seen = (answers(each, row, optimized=True)["y"][:, 0] for each in (path, written))
    ((boxes, scores),) = (each.groups for each in found.answers)
    assert (boxes.first, boxes.last, scores.first, scores.last) == (0, 3, 4, 11)
    assert scores.sqnr_db == pytest.approx(sqnr_db(expected[:, 4:], seen[:, 4:]), abs=1)
    assert found.outputs[0].cosine > 0.99  # what was told before
    assert found.costliest is not None
    assert found.costliest.layer == "scores"
    told = found.describe(worst=5)
    assert "channels 4 to 11" in told
    assert "scores costs most: " in told
    assert "(--keep-float scores, keep_float=['scores'])" in told
    assert "do not part" not in told
    better = compare_artifacts(path, quantized(path, keep_float=[found.costliest.layer]), inputs={"x": row})
    assert better.answers[0].groups[1].sqnr_db > scores.sqnr_db + 10
    assert better.costliest is None


def test_the_ratio_of_a_difference_is_the_formula(tmp_path: Path) -> None:
    path = detector(tmp_path / "a.onnx")
    written, row = quantized(path), ROWS[:1]
    (output,) = compare_artifacts(path, written, inputs={"x": row}).outputs
    expected, seen = (answers(each, row, optimized=True)["y"] for each in (path, written))
    assert output.sqnr_db == pytest.approx(sqnr_db(expected, seen), abs=1)


def classifier(path: Path, flip: bool) -> Path:
    """Its logits are `v` times what it sees; `flip` lets another class win by little."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "b"], ["y"], name="logits"),
    ]
    shift = np.array([5, 5.01 if flip else 4.99, 0, 0, 0], np.float32)
    return saved(path, nodes, weights(v=1e-4 * random(4, 5), b=shift), {"y": (1, 5)})


def compared(folder: Path, task: Task | None) -> Comparison:
    paths = [classifier(folder / f"{flip}.onnx", flip) for flip in (False, True)]
    return compare_artifacts(paths[0], paths[1], inputs={"x": ROWS[:1]}, task=task)


def test_a_class_that_flips_is_told_where_the_decoder_is_known(tmp_path: Path) -> None:
    found = compared(tmp_path, CLASSES)
    assert found.decoded is not None
    assert (found.decoded.answers, found.decoded.kept, found.decoded.flipped) == (1, 0, 1)
    assert "decoded: 0 of 1 classes stay, 1 change their class" in found.describe(worst=5)
    assert found.outputs[0].cosine > 0.9999
    assert compared(tmp_path, None).decoded is None


def test_a_decoder_of_other_outputs_is_refused(tmp_path: Path) -> None:
    unread = Task(kind="detect", decode="yolo-dfl", labels=("a",), options={"reg_max": 1})
    with pytest.raises(UsageError, match=r"the decoder 'yolo-dfl' does not read the outputs of .*; allowed:"):
        compared(tmp_path, unread)
