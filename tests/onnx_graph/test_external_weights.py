from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph.external_weights import (
    WEIGHTS,
    bytes_beside,
    load_without_weights,
    restore_weights,
    write_without_weights,
)
from tests.export.networks import graph

FEEDS = {"images": np.random.default_rng(0).random((2, 48), dtype=np.float32)}
WEIGHT = np.random.default_rng(1).random((48, 64), dtype=np.float32)


@pytest.fixture
def model() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["images", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["out"])]
    weights = {"w": WEIGHT, "b": np.ones(64, np.float32)}
    return graph(nodes, {"images": [2, 48]}, {"out": [2, 64]}, weights)


def test_large_weights_lie_beside_the_graph(model: onnx.ModelProto, tmp_path: Path) -> None:
    whole = run_onnx(model, FEEDS)
    known = write_without_weights(model, tmp_path / "x.onnx")
    assert known.keys() == {"w"}
    assert bytes_beside(tmp_path / "x.onnx") == WEIGHT.nbytes
    assert (tmp_path / "x.onnx").stat().st_size < 2000
    np.testing.assert_array_equal(run_onnx(tmp_path / "x.onnx", FEEDS)["out"], whole["out"])
    np.testing.assert_array_equal(run_onnx(model, FEEDS)["out"], whole["out"])  # and the graph is as it was


def test_what_is_there_is_not_written_again(model: onnx.ModelProto, tmp_path: Path) -> None:
    known = write_without_weights(model, tmp_path / "x.onnx")
    size = (tmp_path / WEIGHTS).stat().st_size
    write_without_weights(model, tmp_path / "y.onnx", known)
    assert (tmp_path / WEIGHTS).stat().st_size == size
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(-WEIGHT, "w"))
    write_without_weights(model, tmp_path / "z.onnx", known)
    seen = [run_onnx(tmp_path / f"{name}.onnx", FEEDS)["out"] for name in "xyz"]
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_allclose(seen[2], 2 - seen[0], rtol=1e-5)


def test_hidden_weights_are_inputs_for_a_while(model: onnx.ModelProto, tmp_path: Path) -> None:
    write_without_weights(model, tmp_path / "x.onnx")
    lean, known = load_without_weights(tmp_path / "x.onnx", hidden_bytes=WEIGHT.nbytes)
    assert [value.name for value in lean.graph.input] == ["images", "w"]
    assert [tensor.name for tensor in lean.graph.initializer] == ["b"]
    restore_weights(lean, known)
    write_without_weights(lean, tmp_path / "y.onnx", known)
    again, _ = load_without_weights(tmp_path / "y.onnx", hidden_bytes=WEIGHT.nbytes + 1)
    assert [value.name for value in again.graph.input] == ["images"]
    np.testing.assert_array_equal(run_onnx(again, FEEDS)["out"], run_onnx(model, FEEDS)["out"])
