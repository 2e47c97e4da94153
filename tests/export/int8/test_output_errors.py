"""Judging INT8: answers of one number, near zero, masks, labels; errors that a cosine over all would hide."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import eightfold as ef
from eightfold.errors import VerificationError
from eightfold.export.int8.output_errors import channel_groups, mean_db, output_errors
from eightfold.export.int8.quantize import LossyInt8Warning
from eightfold.export.int8.quantize_step import verify_quantized
from tests.export.int8.graphs import ROWS, answers, detector, random, saved, sqnr_db, weights


def head(nodes: list[onnx.NodeProto], constants: dict[str, Any], path: Path, outputs: Any, types: Any = None) -> Path:
    """A convolution, its mean over the image, and what comes behind."""
    body = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
    ]
    return saved(path, [*body, *nodes], weights(w=random(16, 4, 3, 3), **constants), outputs, types=types)


def quantized(path: Path, rows: Any = ROWS, **options: Any) -> tuple[Path, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossyInt8Warning)
        ranges = ef.calibrate(path, rows, None, method="minmax")
        written, report = ef.quantize(path, ranges, path.with_name("q.onnx"), form="qdq", images=rows, **options)
    return written, report


@pytest.mark.parametrize("target", ["cpu-x86", "tensorrt", "openvino"])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_one_number_is_judged_by_its_signal_to_noise(tmp_path: Path, target: str, shift: float) -> None:
    nodes = [helper.make_node("Gemm", ["f", "v", "b"], ["y"], name="score")]
    path = head(nodes, {"v": random(16, 1), "b": np.array([shift], np.float32)}, tmp_path / "a.onnx", {"y": (1, 1)})
    int8, report = quantized(path, target=target)
    (error,) = report.errors
    assert error.cosine is None
    expected, found = (answers(each, ROWS[:16], optimized=True)["y"] for each in (path, int8))
    assert error.sqnr_db == pytest.approx(sqnr_db(expected, found), abs=3)


NEAR_ZERO = {
    "two branches that cancel out": [
        helper.make_node("Gemm", ["f", "v", "b"], ["one"], name="one"),
        helper.make_node("Gemm", ["f", "u", "b"], ["two"], name="two"),
        helper.make_node("Sub", ["one", "two"], ["y"]),
    ],
    "a layer that cancels out": [
        helper.make_node("Concat", ["f", "f"], ["twice"], axis=1),
        helper.make_node("Gemm", ["twice", "vu"], ["y"], name="difference"),
    ],
}


@pytest.mark.parametrize("name", NEAR_ZERO)
@pytest.mark.parametrize("width", [1, 4])
def test_an_answer_near_zero_is_not_refused(tmp_path: Path, name: str, width: int) -> None:
    v = random(16, width)
    u = v + 1e-5 * random(16, width, seed=3)
    constants = {"v": v, "u": u, "b": np.zeros(width, np.float32), "vu": np.concatenate([v, -u])}
    path = head(NEAR_ZERO[name], constants, tmp_path / "a.onnx", {"y": (1, width)})
    _, report = quantized(path)
    (error,) = report.errors
    assert error.near_zero
    assert "near zero" in error.describe()
    assert any("near zero" in note for note in report.record().notes)


def test_masks_and_labels_are_judged_by_agreement(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["f", "v"], ["y"], name="scores"),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1),
        helper.make_node("Greater", ["y", "zero"], ["mask"]),
    ]
    outputs = {"label": (1, 1), "mask": (1, 8), "y": (1, 8)}
    types = {"label": TensorProto.INT64, "mask": TensorProto.BOOL}
    path = head(nodes, {"v": random(16, 8), "zero": np.zeros(1, np.float32)}, tmp_path / "a.onnx", outputs, types)
    int8, report = quantized(path)
    expected, found = answers(path, ROWS[:16]), answers(int8, ROWS[:16])
    for each in report.errors[:2]:
        agreement = float(np.mean(expected[each.output] == found[each.output]))
        assert each.agreement == pytest.approx(agreement, abs=0.1)
    assert report.errors[2].agreement is None


def test_an_output_whose_size_follows_from_what_is_found(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["f", "v"], ["y"], name="scores"),
        helper.make_node("Greater", ["y", "limit"], ["mask"]),
        helper.make_node("NonZero", ["mask"], ["found"]),
    ]
    constants = {"v": random(16, 32), "limit": np.zeros(1, np.float32)}
    types = {"found": TensorProto.INT64}
    path = head(nodes, constants, tmp_path / "a.onnx", {"found": (2, "n"), "y": (1, 32)}, types)
    _, report = quantized(path)
    assert report.quantized


def test_lost_scores_behind_boxes_are_told_with_the_layer_that_costs_them(tmp_path: Path) -> None:
    path = detector(tmp_path / "a.onnx")
    ranges = ef.calibrate(path, ROWS, None, method="minmax")
    with pytest.warns(LossyInt8Warning, match=r"y, channels 4 to 11, has .* dB; 'scores' costs it most"):
        written, report = ef.quantize(path, ranges, tmp_path / "q.onnx", form="qdq", images=ROWS)
    expected, found = (answers(each, ROWS[:16], optimized=True)["y"][:, 0] for each in (path, written))
    assert report.step.cosine > 0.99  # what was told before
    boxes, scores = report.errors[0].groups
    assert (boxes.first, boxes.last, scores.first, scores.last) == (0, 3, 4, 11)
    assert boxes.sqnr_db == pytest.approx(sqnr_db(expected[:, :4], found[:, :4]), abs=1)
    assert scores.sqnr_db == pytest.approx(sqnr_db(expected[:, 4:], found[:, 4:]), abs=1)
    assert scores.sqnr_db < 10 < boxes.sqnr_db
    kept, better = ef.quantize(
        path, ranges, tmp_path / "k.onnx", form="qdq", images=ROWS, keep_float=[report.costly[0].layer]
    )
    assert not better.costly
    assert sqnr_db(expected[:, 4:], answers(kept, ROWS[:16])["y"][:, 0, 4:]) > 20


def test_scores_of_rare_classes_stay_one_group_behind_boxes() -> None:
    """Levels: boxes in hundreds of pixels, scores of classes from common to never seen."""
    level = np.array([200.0, 150, 90, 70, 3e-2, 1e-3, 2e-5, 4e-2, 1e-6, 5e-4, 3e-3, 2e-6])
    noise = np.where(np.arange(12) < 4, 1e-2, 1e-4)
    boxes, scores = channel_groups(level**2, noise**2)
    assert (boxes.first, boxes.last, scores.first, scores.last) == (0, 3, 4, 11)
    assert scores.sqnr_db == pytest.approx(10 * np.log10((level[4:] ** 2).sum() / (noise[4:] ** 2).sum()))


def test_the_mean_of_ratios_is_that_of_their_noise() -> None:
    assert mean_db([20.0]) == pytest.approx(20)
    assert mean_db([10.0, 200.0]) == pytest.approx(10 + 10 * np.log10(2))


def test_another_network_is_refused_with_a_remedy(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["f", "v"], ["y"])
    first, second = (
        head([node], {"v": random(16, 8, seed=seed)}, tmp_path / f"{seed}.onnx", {"y": (1, 8)}) for seed in (1, 2)
    )
    with pytest.raises(VerificationError, match=r"output 'y': cosine .* over all images; .*keep_float"):
        verify_quantized(first, second, ROWS, None, target="cpu-x86")


@pytest.mark.parametrize(("size", "broken"), [(1.0, True), (100.0, False)])
def test_broken_is_another_direction_that_is_not_near_zero(size: float, broken: bool) -> None:
    rng = np.random.default_rng(0)
    known, seen = ([{"a": rng.normal(size=(1, 50))} for _ in range(4)] for _ in range(2))
    assert output_errors(known, seen, {"a": size})[0].broken == broken


def test_errors_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    known: list[dict[str, Any]] = [
        {"a": rng.normal(size=(2, 6, 5)), "b": rng.integers(0, 2, (2, 3)) > 0} for _ in range(3)
    ]
    seen = [{"a": each["a"] + 0.1 * rng.normal(size=(2, 6, 5)), "b": ~each["b"]} for each in known]
    first, second = output_errors(known, seen, {})
    whole, other = (np.stack([each["a"] for each in runs]) for runs in (known, seen))
    assert first.sqnr_db == pytest.approx(sqnr_db(whole, other))
    assert first.cosine == pytest.approx(float((whole * other).sum() / np.sqrt((whole**2).sum() * (other**2).sum())))
    assert second.agreement == 0
