"""DequantizeLinear, then QuantizeLinear with the same scale and zero point: the integers come back as they went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex, attribute, drop_unused
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


# Options that say which codes a scale is for, and what they are when they are left out.
BLOCKS = {"axis": 1, "block_size": 0}


def quantize_pairs(graph: onnx.GraphProto) -> int:
    """Remove DequantizeLinear and QuantizeLinear with equal parameters. Returns the number of nodes removed."""
    index = GraphIndex(graph)
    gone = []
    for quantize in graph.node:
        if kind(quantize) != "QuantizeLinear":
            continue
        dequantize = index.producer.get(quantize.input[0])
        if dequantize is None or kind(dequantize) != "DequantizeLinear" or not _same(index, dequantize, quantize):
            continue
        if index.replace(quantize.output[0], dequantize.input[0]):
            gone.append(quantize)
    index.remove(gone)
    if gone:
        drop_unused(graph)
    return len(gone)


def _same(index: GraphIndex, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    if any(attribute(first, name, usual) != attribute(second, name, usual) for name, usual in BLOCKS.items()):
        return False
    if len(first.input) != len(second.input):
        return False
    for name, other in zip(first.input[1:], second.input[1:], strict=True):
        array, other_array = index.array(name), index.array(other)
        if array is None or other_array is None or array.dtype != other_array.dtype:
            return False
        if not np.array_equal(array, other_array):
            return False
    return len(first.input) > 2  # without a zero point the integer type is not told
