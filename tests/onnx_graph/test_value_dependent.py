"""Files with NonMaxSuppression inside: refused in one line that names the operator and where to cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.errors import ModelError
from eightfold.export.fixed_size.fix_shapes import freeze_onnx
from eightfold.export.simplify.simplify import simplify
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx
from eightfold.onnx_graph.value_dependent import value_dependent_node

CONSTANTS: dict[str, list[int] | list[float]] = {
    "most": [10],
    "iou": [0.5],
    "least": [0.1],
    "from": [2],
    "to": [3],
    "last": [1],
}


@pytest.fixture
def with_nms(tmp_path: Path) -> Path:
    """Boxes and scores of a network (1, 3, 4, 4) -> the boxes that survive: (n, 4)."""
    value = helper.make_tensor_value_info
    weights = [
        numpy_helper.from_array(np.array(values, np.float32 if isinstance(values[0], float) else np.int64), name)
        for name, values in CONSTANTS.items()
    ]
    nodes = [
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["chosen"], name="nms"),
        helper.make_node("Slice", ["chosen", "from", "to", "last"], ["third"]),
        helper.make_node("Squeeze", ["third", "last"], ["rows"]),
        helper.make_node("Gather", ["flat", "rows"], ["out"], axis=0),
        helper.make_node("Identity", ["flat"], ["all"]),
        helper.make_node("Squeeze", ["boxes", "zero"], ["flat"]),
    ]
    nodes = [nodes[0], nodes[1], nodes[2], nodes[5], nodes[3], nodes[4]]
    weights.append(numpy_helper.from_array(np.array([0], np.int64), "zero"))
    graph = helper.make_graph(
        nodes,
        "g",
        [value("boxes", TensorProto.FLOAT, [1, 20, 4]), value("scores", TensorProto.FLOAT, [1, 1, 20])],
        [value("out", TensorProto.FLOAT, ["n", 4]), value("all", TensorProto.FLOAT, [20, 4])],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return save_onnx(model, tmp_path / "nms.onnx")


def test_the_operator_is_found_for_the_output_that_it_decides_on(with_nms: Path) -> None:
    graph = load_onnx(with_nms).graph
    found = value_dependent_node(graph, "out")
    assert found is not None
    assert found.name == "nms"
    assert value_dependent_node(graph, "all") is None


@pytest.mark.parametrize("step", [simplify, freeze_onnx])
def test_the_line_names_where_to_cut(with_nms: Path, tmp_path: Path, step: object) -> None:
    assert callable(step)
    with pytest.raises(ModelError, match=r"NonMaxSuppression 'nms' decides.*end the graph at.*'boxes', 'scores'"):
        step(with_nms, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
