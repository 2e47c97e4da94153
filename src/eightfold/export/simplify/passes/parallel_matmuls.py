"""Three or more products of one tensor with weights: x V, x W ... = parts of x [V W ...], one product and a Split.

Not where a bias is added to them: what runs a graph makes one operator of the two, which a Split would keep apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Two would become two.
FEWEST = 3


def parallel_matmuls(graph: onnx.GraphProto) -> int:
    """Merge products of one tensor with several weights. Returns the number of nodes removed."""
    index = GraphIndex(graph)
    gone: list[onnx.NodeProto] = []
    for group in list(_groups(index)):
        first, *others = group
        _insert_behind(graph, first, _merge(index, group))
        gone += others
    index.remove(gone)
    return len(gone)


def _groups(index: GraphIndex) -> Iterator[list[onnx.NodeProto]]:
    for readers in index.readers.values():
        products = [node for node in readers if kind(node) == "MatMul" and _is_plain(index, node)]
        same = [node for node in products if _form(index, node) == _form(index, products[0])]
        if len(same) >= FEWEST:
            yield same


def _form(index: GraphIndex, product: onnx.NodeProto) -> tuple[str, int, int]:
    """The properties that merged products share: the tensor, the rows of the weight and its type."""
    weight = index.weights[product.input[1]]
    return product.input[0], weight.dims[0], weight.data_type


def _is_plain(index: GraphIndex, product: onnx.NodeProto) -> bool:
    tensor, name = product.input
    weight, reader = index.weights.get(name), index.only_reader(product.output[0])
    biased = reader is not None and kind(reader) == "Add" and any(each in index.weights for each in reader.input)
    alone = weight is not None and len(weight.dims) == 2 and index.only_reader(name) is product
    return alone and not biased and tensor not in index.weights


def _merge(index: GraphIndex, group: list[onnx.NodeProto]) -> onnx.NodeProto:
    """Makes the first product compute all of them; returns the Split of its output."""
    from onnx import helper

    first = group[0]
    arrays = [np.asarray(index.array(node.input[1])) for node in group]
    weight = index.set_weight(f"{first.input[1]}_merged", np.concatenate(arrays, axis=1))
    sizes = index.set_weight(f"{first.input[1]}_sizes", np.array([array.shape[1] for array in arrays]))
    outputs, together = [node.output[0] for node in group], index.free(f"{first.output[0]}_merged")
    first.input[1], first.output[0] = weight, together
    return helper.make_node("Split", [together, sizes], outputs, name=f"{first.name}_split", axis=-1)


def _insert_behind(graph: onnx.GraphProto, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
    place = next(place for place, each in enumerate(graph.node) if each is node)
    graph.node.insert(place + 1, new)
