"""Preprocessing inside the network: the input becomes uint8 pixels as a camera gives them, rows of (height, width,
channels), and a quarter of the bytes is copied to the device. Resizing stays outside; the size is the network's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.onnx_clean import clean
from eightfold.export.onnx_files import input_specs
from eightfold.export.passes.graph_index import GraphIndex

if TYPE_CHECKING:
    import onnx


def with_preprocess(model: onnx.ModelProto, preprocess: Preprocess) -> tuple[onnx.ModelProto, Preprocess]:
    """Put `(pixel * scale - mean) / std` into the graph.

    Args:
        model: a fixed-size graph with one float32 input (batch, channels, height, width).
        preprocess: what the network was trained with.

    Returns:
        The new graph, whose input has the same name and is uint8 (batch, height, width, channels) in the same colour
        order; and the `Preprocess` that goes with it.

    Raises:
        UsageError: the input is another one, or is preprocessed in the graph already.
    """
    from onnx import ModelProto, TensorProto, helper

    specs = input_specs(model)
    if len(specs) != 1 or specs[0].dtype != "float32" or len(specs[0].shape) != 4 or preprocess.dtype == "uint8":
        seen = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs)
        raise UsageError(f"the graph's input is {seen}", allowed="one float32 input (batch, channels, height, width)")
    made = ModelProto()
    made.CopyFrom(model)
    name, (batch, channels, height, width) = specs[0].name, specs[0].shape
    index = GraphIndex(made.graph)
    index.replace(name, f"{name}_normalized")
    nodes = _normalizing_nodes(index, name, preprocess)
    body = list(made.graph.node)
    del made.graph.node[:], made.graph.input[:]
    made.graph.node.extend([*nodes, *body])
    made.graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, (batch, height, width, channels)))
    return clean(made), preprocess.model_copy(update={"layout": "nhwc", "dtype": "uint8"})


def _normalizing_nodes(index: GraphIndex, name: str, preprocess: Preprocess) -> list[onnx.NodeProto]:
    """Cast, Transpose, Mul, Add: in float32, with both constants computed in float64 and rounded once."""
    from onnx import TensorProto, helper

    std, mean = np.array(preprocess.std), np.array(preprocess.mean)
    shape = (1, -1, 1, 1)
    gain = index.set_weight(f"{name}_gain", (preprocess.scale / std).astype(np.float32).reshape(shape))
    shift = index.set_weight(f"{name}_shift", (-mean / std).astype(np.float32).reshape(shape))
    steps = ("planes", "float", "scaled", "normalized")
    planes, floats, scaled, normalized = (f"{name}_{step}" for step in steps)
    return [
        helper.make_node("Transpose", [name], [planes], name="preprocess/planes", perm=(0, 3, 1, 2)),
        helper.make_node("Cast", [planes], [floats], name="preprocess/float", to=TensorProto.FLOAT),
        helper.make_node("Mul", [floats, gain], [scaled], name="preprocess/scale"),
        helper.make_node("Add", [scaled, shift], [normalized], name="preprocess/shift"),
    ]
