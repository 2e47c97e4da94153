"""Small graphs for the tests of ONNX pruning, built node by node as different exporters write them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]


def random(*shape: int, seed: int = 0) -> Array:
    generator = np.random.default_rng(seed + sum(shape))
    made: Array = (generator.standard_normal(shape) / np.sqrt(math.prod(shape[1:]))).astype(np.float32)
    return made


def save_graph(
    path: Path,
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Array],
    *,
    inputs: Mapping[str, Sequence[int | str]] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> Path:
    """Write a graph with float inputs."""
    given = inputs or {"x": (1, 3, 16, 16)}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in given.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, str(path))
    return path


def run(path: Path, *arrays: Array) -> list[Array]:
    """What onnxruntime answers."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {each.name: a for each, a in zip(session.get_inputs(), arrays, strict=True)}))


def two_convolutions(path: Path, *, width: int = 32, opset: int = 17) -> Path:
    """A convolution, ReLU, a second one, and a classifier behind global pooling."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c2"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["y"], "classifier", transB=1),
    ]
    weights = {
        "w1": random(width, 3, 3, 3), "b1": random(width), "w2": random(width, width, 3, 3, seed=1),
        "b2": random(width, seed=1), "w3": random(10, width), "b3": random(10),
    }  # fmt: skip
    return save_graph(path, nodes, weights, opset=opset)
