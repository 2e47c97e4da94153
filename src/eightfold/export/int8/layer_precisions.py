"""Counts a graph's layers by precision: a file called int8 may hold a good deal of float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from eightfold.runtime.bundle.manifest import Precision

if TYPE_CHECKING:
    import onnx

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that compute on integers themselves, of ONNX and of onnxruntime's own domain.
INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"})
# onnx.TensorProto.DataType -> the manifest's name.
FLOATS = {1: "fp32", 10: "fp16", 16: "bf16"}


def layer_precisions(model: onnx.ModelProto) -> dict[str, int]:
    """Precision -> number of convolutions and matrix products in it, most frequent first.

    A layer between Q/DQ pairs counts as int8: every back end that reads them runs it so.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in INTEGER:
            counts["int8"] += 1
        elif node.op_type in WEIGHTED:
            counts[_precision(node.input[1], made_by, kinds)] += 1
    return dict(counts.most_common())


def narrowest_precision(layers: Mapping[str, int]) -> Precision:
    """The precision that a network is called by: that of its narrowest layers; fp32 where it has none.

    >>> narrowest_precision({"fp32": 9, "int8": 1})
    'int8'
    """
    narrow: tuple[Precision, ...] = ("int8", "fp16", "bf16")
    return next((each for each in narrow if layers.get(each)), "fp32")


def _precision(weight: str, made_by: dict[str, onnx.NodeProto], kinds: dict[str, int]) -> str:
    """Follow a weight back to where it is stored, through what only moves or casts it."""
    while weight in made_by:
        node = made_by[weight]
        if node.op_type == "DequantizeLinear":
            return "int8"
        if not node.input or node.op_type not in ("Transpose", "Reshape", "Identity"):
            return "fp32"  # the product of two activations
        weight = node.input[0]
    return FLOATS.get(kinds.get(weight, 1), "fp32")
