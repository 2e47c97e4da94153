"""Small graphs for the tests of ONNX pruning, built node by node as different exporters write them."""

from __future__ import annotations

import contextlib
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
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    model.metadata_props.add(key="author", value="somebody")
    with contextlib.suppress(onnx.shape_inference.InferenceError):  # operators that nobody knows
        known = onnx.shape_inference.infer_shapes(model).graph.output
        del model.graph.output[:]
        model.graph.output.extend(known)
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


def residual_network(path: Path, *, width: int = 32, blocks: int = 2, batch: int | str = 1, size: int = 16) -> Path:
    """A stem, residual blocks of two convolutions, and a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["o0"], "stem/relu"),
    ]
    weights = {"w0": random(width, 3, 3, 3), "b0": random(width)}
    for k in range(1, blocks + 1):
        nodes += [
            helper.make_node("Conv", [f"o{k - 1}", f"w{k}a", f"b{k}a"], [f"a{k}"], f"{k}/first", pads=[1] * 4),
            helper.make_node("Relu", [f"a{k}"], [f"r{k}"], f"{k}/relu"),
            helper.make_node("Conv", [f"r{k}", f"w{k}b", f"b{k}b"], [f"f{k}"], f"{k}/second", pads=[1] * 4),
            helper.make_node("Add", [f"f{k}", f"o{k - 1}"], [f"s{k}"], f"{k}/add"),
            helper.make_node("Relu", [f"s{k}"], [f"o{k}"], f"{k}/last"),
        ]
        for letter in "ab":
            weights[f"w{k}{letter}"] = random(width, width, 3, 3, seed=2 * k + ord(letter)) / k
            weights[f"b{k}{letter}"] = random(width, seed=2 * k + ord(letter)) / width
    nodes += [
        helper.make_node("GlobalAveragePool", [f"o{blocks}"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["y"], "classifier", transB=1),
    ]
    weights |= {"w": random(10, width), "b": random(10)}
    return save_graph(path, nodes, weights, inputs={"x": (batch, 3, size, size)})


def zeroed(path: Path, removed: Mapping[tuple[str, int], NDArray[np.int64]], output: Path) -> Path:
    """The graph with these positions of its initializers set to zero."""
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        for (name, dim), gone in removed.items():
            if name == tensor.name:
                np.moveaxis(array, dim, 0)[gone] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, str(output))
    return output
