from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eightfold.runtime.bench.peak_memory import peak_memory_bytes


def save_with_weight(path: Path, megabytes: int) -> Path:
    """Adds a constant of that size."""
    size = megabytes << 18
    weight = numpy_helper.from_array(np.ones(size, np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "add", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_a_larger_model_takes_as_much_more(tmp_path: Path) -> None:
    small = peak_memory_bytes(save_with_weight(tmp_path / "small.onnx", 1), "onnxruntime", 1)
    large = peak_memory_bytes(save_with_weight(tmp_path / "large.onnx", 33), "onnxruntime", 1)
    assert small is not None
    assert large is not None
    # Weight, input and output are 32 MB larger each; loading may hold the weight twice.
    assert 90e6 < large - small < 200e6


def test_a_model_that_cannot_be_loaded_has_none(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"x")
    assert peak_memory_bytes(tmp_path / "broken.onnx", "onnxruntime") is None
