"""Ranges of histograms that activations make and textbooks do not, against a search over the values themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.calib.calibrate import calibrate
from eightfold.calib.histogram import Histogram
from eightfold.calib.observers import METHODS
from eightfold.calib.ranges import TensorRange
from eightfold.calib.thresholds import range_of

COUNT = 3000
FUNCTIONS = torch.nn.functional


def error(values: Any, low: float, high: float, levels: int) -> float:
    """Mean squared error of 8-bit codes from `low` to `high`, written out."""
    if high <= low:
        return float(np.mean(values**2))
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    codes = np.clip(np.round(values / step) + zero, 0, levels - 1)
    return float(np.mean((values - (codes - zero) * step) ** 2))


def unsigned(values: Any, found: TensorRange) -> float:
    return error(values, min(found.low, 0.0), max(found.high, 0.0), 256)


def signed(values: Any, found: TensorRange) -> float:
    return error(values, -found.threshold, found.threshold, 255)


def filled(values: Any) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


def activation(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda rng: function(torch.from_numpy(rng.normal(0, rng.uniform(0.3, 4), COUNT))).numpy()


def spike(rng: Any, *, share: float) -> Any:
    """Most values the same one, which is not zero; the others around it."""
    values = rng.normal(rng.normal(0, 3), rng.uniform(0.1, 3), COUNT)
    return np.where(rng.random(COUNT) < share, rng.normal(0, 5), values)


FAMILIES: dict[str, Callable[[Any], Any]] = {
    "away from zero": lambda rng: rng.uniform(0.148, 0.868, COUNT) * rng.uniform(0.1, 10),
    "far away from zero": lambda rng: 100 + rng.normal(0, 1, COUNT),
    "below zero": lambda rng: -rng.uniform(0.5, 3, COUNT),
    "hard sigmoid": activation(FUNCTIONS.hardsigmoid),
    "hard swish": activation(FUNCTIONS.hardswish),
    "gelu": activation(FUNCTIONS.gelu),
    "silu": activation(FUNCTIONS.silu),
    "elu": activation(FUNCTIONS.elu),
    "leaky": activation(lambda x: FUNCTIONS.leaky_relu(x, 0.1)),
    "tanh": activation(torch.tanh),
    "relu6": activation(FUNCTIONS.relu6),
    "one lobe small": lambda rng: np.where(
        rng.random(COUNT) < 0.95, -0.17 * rng.random(COUNT), 3.5 * rng.random(COUNT)
    ),
    "other lobe small": lambda rng: np.where(rng.random(COUNT) < 0.95, 0.1 * rng.random(COUNT), -9 * rng.random(COUNT)),
    "a spike": lambda rng: spike(rng, share=0.9),
    "a spike of nearly all": lambda rng: spike(rng, share=0.999),
    "two values": lambda rng: rng.choice(rng.normal(0, 2, 2), COUNT, p=[0.97, 0.03]),
    "two values, one of them zero": lambda rng: rng.choice([0.0, rng.normal(0, 2)], COUNT),
    "three values": lambda rng: rng.choice(rng.normal(0, 2, 3), COUNT),
    "a constant": lambda rng: np.full(COUNT, rng.normal(0, 2)),
    "a lone outlier": lambda rng: np.append(rng.normal(0, 1, COUNT), rng.uniform(5, 200)),
    "heavy tails": lambda rng: rng.standard_t(2, COUNT),
    "exponential": lambda rng: rng.exponential(1, COUNT),
    "tiny": lambda rng: 1e-20 * rng.normal(0, 1, COUNT),
    "mostly at the end": lambda rng: np.where(rng.random(COUNT) < 0.98, 0.868, rng.uniform(0, 0.868, COUNT)),
}


def close(found: float, best: float, values: Any, factor: float) -> bool:
    """Within the factor, or 45 dB below the signal: bins are counted at their centres."""
    return found <= factor * best + 10**-4.5 * float(np.mean(values**2))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_entropy_never_cuts_off_more_than_it_gains(family: str, seed: int) -> None:
    values = FAMILIES[family](np.random.default_rng(seed)).astype(np.float32).astype(np.float64)
    found = range_of(filled(values), "entropy")
    reach = np.abs(values).max()
    whole = error(values, min(values.min(), 0.0), max(values.max(), 0.0), 256)
    assert close(unsigned(values, found), whole, values, 1.02)
    assert close(signed(values, found), error(values, -reach, reach, 255), values, 1.02)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_mse_is_as_good_as_a_search_over_the_values(family: str, seed: int) -> None:
    values = FAMILIES[family](np.random.default_rng(seed)).astype(np.float32).astype(np.float64)
    found = range_of(filled(values), "mse")
    reach, low, high = np.abs(values).max(), min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.arange(1, 41) / 40
    assert close(signed(values, found), min(error(values, -reach * f, reach * f, 255) for f in shares), values, 1.1)
    ends = {(low * a, high * b) for a in shares[::2] for b in shares[::2]}
    assert close(unsigned(values, found), min(error(values, *each, 256) for each in ends), values, 1.1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_gives_a_range_of_what_was_seen(family: str, method: Any) -> None:
    values = FAMILIES[family](np.random.default_rng(1)).astype(np.float32)
    found = range_of(filled(values), method)
    assert found.min <= found.low <= found.high <= found.max
    assert 0 <= found.threshold <= np.abs(values).max() * 1.0001


def test_the_thresholds_of_the_field() -> None:
    """A hard sigmoid's output in [0.148, 0.868] got 0.1484; that of a GELU in [-0.17, 3.47] got 0.34."""
    rng = np.random.default_rng(0)
    sigmoid = np.clip(rng.normal(0.5, 0.1, 40000), 0.148, 0.868)
    assert range_of(filled(sigmoid), "entropy").high > 0.75
    gelu = FUNCTIONS.gelu(torch.from_numpy(rng.normal(-1.5, 1.2, 40000))).numpy()
    found = range_of(filled(gelu), "entropy")
    assert found.low < -0.1
    assert found.high > 0.5 * gelu.max()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_tensor_without_elements_is_no_defect(tmp_path: Path, method: Any) -> None:
    """Exporters leave slices of nothing in graphs, which a concatenation takes in."""
    path, make = tmp_path / "model.onnx", onnx.helper.make_node
    bounds = [onnx.numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("one", 1))]
    nodes = [
        make("Relu", ["images"], ["positive"]),
        make("Slice", ["images", "zero", "zero", "one"], ["nothing"]),
        make("Exp", ["nothing"], ["powers"]),
        make("Concat", ["positive", "powers"], ["whole"], axis=1),
        make("Add", ["whole", "whole"], ["sum"]),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("images", "sum")
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], bounds)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    rows = np.random.default_rng(0).uniform(-1, 1, (8, 3, 4, 4)).astype(np.float32)
    found = calibrate(path, list(rows), None, method=method)
    assert found.tensors["sum"].max == pytest.approx(2 * rows.max())
