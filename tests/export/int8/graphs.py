"""Small float graphs written node by node, and how near the INT8 form of one is to it as onnxruntime runs both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import eightfold as ef

ROWS = np.random.default_rng(0).normal(size=(40, 4, 8, 8)).astype(np.float32)


def weights(**arrays: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    outputs: Mapping[str, Sequence[int]],
    *,
    name: str = "x",
    shape: Sequence[int] = (1, 4, 8, 8),
    opset: int = 17,
    types: dict[str, int] | None = None,
) -> Path:
    """A checked file of one float input."""
    values = [
        helper.make_tensor_value_info(key, (types or {}).get(key, TensorProto.FLOAT), dims)
        for key, dims in outputs.items()
    ]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(list(nodes), "graph", given, values, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def answers(path: Path, rows: Any, *, optimized: bool = False) -> dict[str, Any]:
    """Of all rows, one at a time, by output. Only `optimized` sessions use the kernels of INT8, which saturate on CPUs
    without VNNI."""
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = [session.run(names, {session.get_inputs()[0].name: row[None]}) for row in rows]
    return {name: np.stack([each[place] for each in found]) for place, name in enumerate(names)}


def sqnr_db(expected: Any, found: Any) -> float:
    error = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / max(error, 1e-30)))


def quantized(path: Path, *, rows: Any = ROWS, target: str = "cpu-x86", method: Any = "minmax", **options: Any) -> Any:
    """(path of the INT8 form, its report), checked and compared on the rows."""
    ranges = ef.calibrate(path, rows, None, method=method)
    output = path.with_suffix(f".{target.replace(':', '-')}.int8.onnx")
    options.setdefault("form", "qdq")
    written, report = ef.quantize(path, ranges, output, target=target, images=rows, **options)
    onnx.checker.check_model(str(written), full_check=True)
    return written, report


def detector(path: Path) -> Path:
    """Boxes in pixels beside scores that hang on small numbers: they are lost when one scale has to do for both."""
    nodes = [
        helper.make_node("Conv", ["r", "wb"], ["boxes"], name="boxes", kernel_shape=[1, 1]),
        helper.make_node("Mul", ["c2", "wide"], ["spread"]),
        helper.make_node("Conv", ["spread", "ws"], ["scores"], name="scores", kernel_shape=[1, 1]),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], axis=1),
    ]
    body = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c2"], name="middle", kernel_shape=[1, 1]),
    ]
    wide = np.ones((1, 16, 1, 1), np.float32)
    wide[0, 0] = 3000  # rules the scale of the tensor, and no score reads it
    scores = random(8, 16, 1, 1, seed=5) / 50
    scores[:, 0] = 0
    constants = weights(
        w=random(16, 4, 3, 3), w2=random(16, 16, 1, 1, seed=2), wb=300 * random(4, 16, 1, 1), wide=wide, ws=scores
    )
    return saved(path, [*body, *nodes], constants, {"y": (1, 12, 6, 6)})
