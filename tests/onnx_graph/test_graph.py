"""What calibration knows of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.calib.ranges import Ranges, TensorRange
from eightfold.export.int8.qdq_plan import plan_qdq
from eightfold.export.targets import target_named
from eightfold.onnx_graph.fold import pool_spatial_means_
from eightfold.onnx_graph.fold_norms import norm_into_conv
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import layers_of


def network(domain: str, side: int = 3, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """Convolution, batch norm, ReLU, mean over the pixels and a flattened result, by operators of `domain`."""
    weights = {"w": np.ones((4, 3, side, side)), **{name: np.ones(4) for name in ("gain", "shift", "mean", "spread")}}
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["convolved"], domain=domain),
        helper.make_node("BatchNormalization", ["convolved", *list(weights)[1:]], ["normed"], domain=domain),
        helper.make_node("Relu", ["normed"], ["bent"], domain=domain),
        helper.make_node("ReduceMean", ["bent"], ["pooled"], axes=[2, 3], domain=domain),
        helper.make_node("Flatten", ["pooled"], ["flat"], domain=domain),
    ]
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 64, 64))],
        [helper.make_tensor_value_info("flat", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        value_info=[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("theirs", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


STATED: dict[str, Any] = {"convolved": (1, 4, 62, 62), "normed": (1, 4, 62, 62), "bent": (1, 4, 62, 62)}
STATED |= {"pooled": (1, 4, 1, 1)}


def ranges() -> Ranges:
    seen = TensorRange(min=-1, max=1, low=-1, high=1, threshold=1)
    tensors = dict.fromkeys(("images", *STATED, "flat"), seen)
    return Ranges(method="minmax", images=1, image_set="", graph="", tensors=tensors)


def test_names_of_operators_mean_nothing_in_a_domain_of_others() -> None:
    graph = ModelGraph(network("theirs", **STATED), "theirs")
    assert graph.activations == graph.observed == ("images", *STATED, "flat")
    assert layers_of(graph) == []
    assert plan_qdq(graph, ranges(), target_named("cpu-x86")).quantized == []


def test_nothing_is_folded_into_operators_of_others() -> None:
    model = network("theirs", **STATED)
    assert norm_into_conv(model.graph) == pool_spatial_means_(model) == 0


def test_a_norm_that_trains_is_neither_folded_nor_fused_away() -> None:
    """In training mode it takes the mean of what comes in: ranges are needed in front of it."""
    model = network("", **STATED)
    norm = model.graph.node[1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["running_mean", "running_spread"])
    assert norm_into_conv(model.graph) == 0
    assert "convolved" in ModelGraph(model, "ours").observed


def test_the_same_in_the_domain_of_the_standard() -> None:
    graph = ModelGraph(network(""), "ours")
    assert graph.observed == ("images", "bent", "pooled")
    assert len(layers_of(graph)) == 1
    assert plan_qdq(graph, ranges(), target_named("cpu-x86")).quantized == ["convolved"]
    assert norm_into_conv(network("ai.onnx").graph) == pool_spatial_means_(network("")) == 1


def test_shapes_are_inferred_without_the_large_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, infer = [], onnx.shape_inference.infer_shapes

    def watched(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
        sizes.append(model.ByteSize())
        return infer(model, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", watched)
    model = network("", side=60)
    assert ModelGraph(model, "large").types["convolved"] == (TensorProto.FLOAT, (1, 4, 5, 5))
    assert sizes[0] < 2000 < model.ByteSize()


def test_shapes_that_only_the_file_states_are_taken_from_it() -> None:
    types = ModelGraph(network("theirs", **STATED), "theirs").types
    assert {name: shape for name, (_, shape) in types.items() if name in STATED} == STATED
