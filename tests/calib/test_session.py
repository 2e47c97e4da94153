"""Runners of a graph: buffers that are used again hold the same values as new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.calib.observers import MinMax, MovingAverage, extremes, make_observer
from eightfold.calib.session import open_runner
from eightfold.errors import CalibrationError
from eightfold.onnx_graph.graph import read_graph


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    return Path(ef.export_onnx(net, tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=12))


def test_buffers_hold_what_new_memory_would(path: Path) -> None:
    graph = read_graph(path)
    images = list(np.random.default_rng(0).random((11, 3, 12, 12), dtype=np.float32))
    fresh = open_runner(graph, graph.observed, images[0], batch=4)
    again = open_runner(graph, graph.observed, images[0], batch=4, reuse=True)
    assert again.reuse
    for first in (0, 4, 8, 0, 8):  # the third batch is a smaller one
        rows = images[first : first + 4]
        (new,), (kept,) = list(fresh(rows)), list(again(rows))
        for name, values in new.items():
            np.testing.assert_array_equal(kept[name], values)
    (one,), (other,) = list(again(images[:4])), list(again(images[4:8]))
    assert all(np.shares_memory(one[name], other[name]) for name in one if name != graph.input.name)


def test_calibration_does_not_depend_on_the_buffers(path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 12, 12), dtype=np.float32)
    found = {batch: ef.calibrate(path, images, None, batch=batch) for batch in (1, 7, 40)}
    for name, each in found[1].tensors.items():
        assert found[7].tensors[name].threshold == pytest.approx(each.threshold, rel=1e-5)
        assert found[40].tensors[name].max == pytest.approx(each.max, rel=1e-5)


def test_operators_that_onnxruntime_lacks_are_one_line(path: Path, tmp_path: Path) -> None:
    """Plugins of TensorRT, and what a newer standard brought."""
    model = onnx.load(path)
    model.opset_import.append(onnx.helper.make_opsetid("plugins", 1))
    model.graph.node[-1].domain, model.graph.node[-1].op_type = "plugins", "Special"
    onnx.save(model, tmp_path / "special.onnx")
    images = np.zeros((2, 3, 12, 12), np.float32)
    with pytest.raises(
        CalibrationError, match=r"onnxruntime cannot run the graph \(.*Special.*; allowed: operators and"
    ):
        ef.calibrate(tmp_path / "special.onnx", images, None)


@pytest.mark.parametrize("size", [1, 1000, 200_001])
def test_extremes_are_those_of_numpy(size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    assert extremes(values) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 70_000, 199_999])
@pytest.mark.parametrize("observer", [MinMax(), MovingAverage(), make_observer("mse")])
def test_a_value_that_is_not_finite_is_found_wherever_it_is(bad: float, place: int, observer: MinMax) -> None:
    values = np.zeros((2, 100_000), np.float32)
    assert observer.see_checked(values)
    values.reshape(-1)[place] = bad
    assert not observer.see_checked(values)
