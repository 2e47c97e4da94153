"""A network made by code, whose outputs have any shapes wanted and depend on every part of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from eightfold.calib.images.preprocess import Preprocess

GRID = 4
AXES = {"nchw": [0, 1, 2, 3], "nhwc": [0, 3, 1, 2]}
TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of an output, which broadcast to its shape without the batch axis."""

    mean: Any = 0.0
    std: Any = 1.5


def save_network(
    path: Path,
    preprocess: Preprocess,
    outputs: Mapping[str, tuple[int, ...]],
    batch: int,
    spreads: dict[str, Spread] | None = None,
) -> None:
    """Each output is a random linear map of the picture, averaged over a 4 x 4 grid, about normally distributed.

    Args:
        path: where to save it.
        preprocess: gives the input's size, layout and type.
        outputs: name -> shape without the batch axis.
        batch: size of the batch axis.
        spreads: output -> how its values lie.
    """
    random = np.random.default_rng(0)
    channels, height, width = preprocess.channels, preprocess.height, preprocess.width
    pool = [height // GRID, width // GRID]
    sides = [channels, height, width] if preprocess.layout == "nchw" else [height, width, channels]
    nodes: list[NodeProto] = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=AXES[preprocess.layout]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=pool, strides=pool),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    features = channels * ((height - pool[0]) // pool[0] + 1) * ((width - pool[1]) // pool[1] + 1)
    constants = []
    for name, shape in outputs.items():
        spread = (spreads or {}).get(name, Spread())
        mean, std = (np.broadcast_to(value, shape).ravel() for value in (spread.mean, spread.std))
        weights = random.standard_normal((features, int(np.prod(shape)))) * std / np.sqrt(features)
        constants += [
            numpy_helper.from_array(weights.astype(np.float32), f"{name}-weights"),
            numpy_helper.from_array(mean.astype(np.float32), f"{name}-mean"),
            numpy_helper.from_array(np.array([batch, *shape], np.int64), f"{name}-shape"),
        ]
        nodes += [
            helper.make_node("MatMul", ["features", f"{name}-weights"], [f"{name}-centred"]),
            helper.make_node("Add", [f"{name}-centred", f"{name}-mean"], [f"{name}-flat"]),
            helper.make_node("Reshape", [f"{name}-flat", f"{name}-shape"], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "random maps",
        [helper.make_tensor_value_info("images", TYPES[preprocess.dtype], [batch, *sides])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape]) for name, shape in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
