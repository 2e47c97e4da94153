"""The search for layers to keep in float: it finds the one that was spoilt, stops there, and can be interrupted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageWarning
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Ranges
from eightfold.errors import ImageError, UnknownNameError, UsageError
from eightfold.export.int8.int8_speed import Int8Speed
from eightfold.export.int8.mixed_precision import SearchOptions, quantize_within
from eightfold.export.int8.score import Score, sqnr_score, top1_score
from eightfold.export.int8.search_files import SearchBound

ModelMaker = Callable[..., Path]
PREPROCESS = Preprocess(height=12, width=12)


@pytest.fixture
def images() -> Any:
    return open_images(np.random.default_rng(0).integers(0, 256, (12, 14, 15, 3), dtype=np.uint8))


@pytest.fixture
def spoilt(residual_net: ModelMaker, images: Any) -> tuple[Path, Ranges]:
    """A net whose depthwise layer's result is clipped to a tenth of what it should be."""
    path = residual_net()
    ranges = calibrate(path, images, PREPROCESS, method="minmax")
    entry = ranges.tensors["depthwise_relu"]
    tensors = {**ranges.tensors, "depthwise_relu": entry.model_copy(update={"high": entry.high / 10})}
    return path, ranges.model_copy(update={"tensors": tensors})


@pytest.mark.parametrize("ranking", ["quantize-one", "dequantize-one"])
def test_the_spoilt_layers_go_back_to_float(
    spoilt: tuple[Path, Ranges], images: Any, tmp_path: Path, ranking: Any
) -> None:
    path, ranges = spoilt
    score = sqnr_score(path, images, PREPROCESS)
    options = SearchOptions(max_drop=35.0, ranking=ranking, measure=False)
    output, report = quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, weight_bits=8)
    assert report.met
    # The clipped tensor lies between these two; both read or write it.
    assert set(report.steps[-1].kept_float) <= {"depthwise", "point"}
    assert report.steps[0].score < 25 <= report.steps[-1].score
    assert "depthwise_relu_dequantized" not in {
        name for node in onnx.load(str(output)).graph.node for name in node.input
    }
    assert "allowed drop 35" in report.describe()


def test_nothing_is_ranked_where_int8_is_good_enough(residual_net: ModelMaker, images: Any, tmp_path: Path) -> None:
    path = residual_net()
    ranges = calibrate(path, images, PREPROCESS, method="minmax")
    score = sqnr_score(path, images, PREPROCESS)
    _, report = quantize_within(
        path, ranges, tmp_path / "int8.onnx", score, SearchOptions(max_drop=50.0, measure=False)
    )
    assert report.met
    assert len(report.steps) == 1
    assert report.damage == {}


def test_an_interrupted_search_measures_nothing_twice(spoilt: tuple[Path, Ranges], tmp_path: Path) -> None:
    path, ranges = spoilt
    state, measured = tmp_path / "search.json", [0]

    def of(file: Path) -> float:
        measured[0] += 1
        if measured[0] == 4:
            raise KeyboardInterrupt
        return float(sum(node.op_type == "DequantizeLinear" for node in onnx.load(str(file)).graph.node))

    score = Score("nodes", "", of, perfect=1000.0)
    options = SearchOptions(max_drop=1.0, most_float=0.5, measure=False)
    with pytest.raises(KeyboardInterrupt):
        quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, state=state)
    assert not (tmp_path / "int8.onnx").exists()
    _, report = quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, state=state)
    layers = len(report.damage)
    assert measured[0] == 1 + 1 + layers + layers // 2  # the interrupted one, all INT8, one per layer, the steps
    assert not report.met
    assert "WARNING" in report.describe()
    before = measured[0]
    quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, state=state)
    assert measured[0] == before


def test_the_trade_is_drawn(spoilt: tuple[Path, Ranges], images: Any, tmp_path: Path) -> None:
    path, ranges = spoilt
    score = sqnr_score(path, images, PREPROCESS)
    options = SearchOptions(max_drop=30.0, most_float=0.0, measure=False)
    _, report = quantize_within(path, ranges, tmp_path / "int8.onnx", score, options)
    assert "layers given back to float" in report.plot(tmp_path / "trade.svg").read_text()


def test_speed_is_measured_once_and_shown(
    spoilt: tuple[Path, Ranges], images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ranges = spoilt
    calls = []

    def measured(*_: Any, **__: Any) -> Int8Speed:
        calls.append(1)
        times = {"fp32_ms": 2.0, "qdq_ms": 1.25, "qoperator_ms": 1.2}
        return Int8Speed(**times, form="qdq", speedup=0.9, low=0.8, high=0.95)

    monkeypatch.setattr("eightfold.export.int8.mixed_precision.measure_int8", measured)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    options = SearchOptions(max_drop=30.0, most_float=0.0)
    state = tmp_path / "state.json"
    score = sqnr_score(path, images, PREPROCESS)
    _, report = quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, state=state)
    _, again = quantize_within(path, ranges, tmp_path / "int8.onnx", score, options, state=state)
    assert again == report
    assert len(calls) == len(report.steps)
    assert [(step.speedup, step.latency_ms) for step in report.steps] == [(0.9, 1.25)] * len(report.steps)
    assert "1.25        0.90  (all INT8)" in report.describe()
    assert "INT8 is SLOWER than FP32 on this machine" in report.describe()
    assert "times as fast as FP32" in report.plot(tmp_path / "trade.svg").read_text()


def test_top1_needs_labels(residual_net: ModelMaker, images: Any) -> None:
    with pytest.raises(ImageError, match="no labels"):
        top1_score(images, PREPROCESS)
    labelled = open_images(list(images), labels=[0] * 12)
    assert 0 <= top1_score(labelled, PREPROCESS).of(residual_net()) <= 100


def test_top1_counts_the_images_that_can_be_read(residual_net: ModelMaker, tmp_path: Path) -> None:
    """Labels stay with their images where one is skipped, by onnxruntime on each of them."""
    import cv2
    import onnxruntime as ort

    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number:02}.png" for number in range(41)]
    for file in files:
        cv2.imwrite(str(file), rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    path, rows = residual_net(), [PREPROCESS(read_image(file))[None] for file in files]
    session = ort.InferenceSession(path)
    best = [int(session.run(None, {session.get_inputs()[0].name: row})[0].argmax()) for row in rows]
    labels = [answer if number % 2 else 0 for number, answer in enumerate(best)]
    files[0].write_bytes(files[0].read_bytes()[:60])
    score = top1_score(open_images(files, labels=labels), PREPROCESS)
    with pytest.warns(ImageWarning, match=r"skipped: .*00\.png is truncated"):
        assert score.of(path) == pytest.approx(100 * np.mean(np.array(best[1:]) == labels[1:]))
    with pytest.raises(ImageError, match=r"labels from 0 to 99999; allowed: 0 to "):
        top1_score(open_images(files[1:], labels=[0] * 39 + [99999]), PREPROCESS).of(path)


def test_wrong_options() -> None:
    wrong: Any = "worst"
    with pytest.raises(UnknownNameError, match="unknown ranking 'worst'"):
        SearchOptions(max_drop=1.0, ranking=wrong)
    with pytest.raises(UsageError, match="max_drop -1"):
        SearchOptions(max_drop=-1.0)


@pytest.mark.parametrize(
    ("bound", "value"), [("max_drop", -1.0), ("max_drop", float("nan")), ("min_sqnr_db", float("nan"))]
)
def test_a_bound_that_nothing_can_hold_is_refused(bound: str, value: float) -> None:
    """NaN compares as false with everything: the search would go through every layer and find none good enough."""
    with pytest.raises(UsageError, match=r"allowed: (0 or more|a finite number)"):
        SearchBound(**{bound: value})
