"""A graph whose one weight is larger than protobuf holds, for `export_cost.py --large`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

SIDE = 24_000
IMAGE = (3, 80, 100)  # as many numbers as the matrix has rows
FLOAT_BYTES = 4


def diagonal(side: int) -> NDArray[np.float32]:
    """What each number of the image is multiplied with."""
    return (0.5 + np.arange(side) % 7).astype("<f4")


def write_large_graph(folder: Path, side: int = SIDE, image: tuple[int, int, int] = IMAGE) -> Path:
    """An image times a diagonal matrix of `side` x `side`, with nodes that a simplifier takes out.

    The zeros are never written: the weight file is sparse and takes 4 kB per row on disk, not `4 * side` bytes.
    """
    with (folder / "large.weights").open("wb") as stream:
        for row, value in enumerate(diagonal(side)):
            stream.seek((row * side + row) * FLOAT_BYTES)
            stream.write(value.tobytes())
        stream.truncate(side * side * FLOAT_BYTES)
    nodes = [
        helper.make_node("Identity", ["images"], ["same"]),
        helper.make_node("Reshape", ["same", "shape"], ["row"]),
        helper.make_node("Identity", ["row"], ["again"]),
        helper.make_node("MatMul", ["again", "weight"], ["product"]),
        helper.make_node("Relu", ["product"], ["scores"]),
    ]
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=(side, side))
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="large.weights")
    shape = helper.make_tensor("shape", TensorProto.INT64, (2,), (-1, side))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, *image))
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, (1, side))
    graph = helper.make_graph(nodes, "large", [images], [scores], [shape, weight])
    path = folder / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
