"""ONNX files in place of bundles: outputs without a row for each image are refused, not cut into pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import eightfold as ef
from eightfold.errors import ModelError

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")


def network(path: Path, *, constant: bool) -> Path:
    """The mean of each channel, and with `constant` four numbers that no image changes."""
    value = helper.make_tensor_value_info
    outputs = [value("mean", 1, [1, 3, 1, 1]), *([value("anchors", 1, [4])] if constant else [])]
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["images"], ["mean"])],
        "g",
        [value("images", 1, [1, 3, 8, 8])],
        outputs,
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "anchors")] if constant else [],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_output_that_is_a_constant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"output 'anchors' of .* has the shape \(4,\) for 1 images; .*; leave it out"):
        ef.Predictor(network(tmp_path / "net.onnx", constant=True))


def test_outputs_with_rows_are_taken(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    with ef.Predictor(network(tmp_path / "net.onnx", constant=False)) as predictor:
        (found,) = predictor.run({"images": pixels.transpose(2, 0, 1)[None].astype(np.float32)}).values()
    np.testing.assert_allclose(found.reshape(3), [10, 20, 30])
