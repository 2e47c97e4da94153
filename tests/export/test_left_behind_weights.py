"""An ONNX file whose weights lie in another one, which was not copied along: every reader names that file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.errors import ModelError
from eightfold.onnx_graph.graph import read_graph
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.openvino import OpenVinoSession
from eightfold.runtime.backends.ort import OrtSession
from eightfold.runtime.backends.ort_providers import CPU


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    weights = numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weights"], ["out"])],
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 8, 8])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.weights", size_threshold=0)
    (tmp_path / "net.weights").unlink()
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "load_onnx": load_onnx,
    "onnxruntime": lambda path: OrtSession("onnxruntime", path, CPU, SessionOptions()),
    "openvino": lambda path: OpenVinoSession(path, SessionOptions()),
}


@pytest.mark.parametrize("reader", READERS)
def test_the_file_that_was_left_behind_is_named(reader: str, alone: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.onnx has its weights in net\.weights, .*; copy net\.weights into "):
        READERS[reader](alone)


def test_calibration_says_where_it_should_be(alone: Path) -> None:
    with pytest.raises(ModelError, match=r"has its weights in net\.weights, .*; copy net\.weights into "):
        read_graph(alone)


@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_no_file_can_have_is_not_there(reader: str, alone: Path) -> None:
    model = onnx.load(alone, load_external_data=False)
    (location,) = (entry for entry in model.graph.initializer[0].external_data if entry.key == "location")
    location.value = 300 * "x"
    alone.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"has its weights in x{100}, which is missing") as caught:
        READERS[reader](alone)
    assert "\n" not in str(caught.value)
