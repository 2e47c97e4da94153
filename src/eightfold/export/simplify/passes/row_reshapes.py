"""Reshape to a matrix, work on its rows, Reshape back: the reshapes are not needed where each row is worked on alone.

Gemm becomes MatMul, which takes the last two axes of any tensor, and an Add, unless its bias is zero; elementwise nodes
stay as they are. Some simplifiers write the long form; builders fuse the short one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex, attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Operators that work on each element, whatever the shape.
ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Tanh",
        "Where",
    }
)


@dataclasses.dataclass(frozen=True)
class _Region:
    """`start` makes rows of what it takes, `inner` works on them, each of `ends` restores the axes."""

    start: onnx.NodeProto
    inner: list[onnx.NodeProto]
    ends: list[onnx.NodeProto]

    @property
    def members(self) -> set[int]:
        return {id(node) for node in (self.start, *self.inner, *self.ends)}


def row_reshapes(graph: onnx.GraphProto) -> int:
    """Needs inferred shapes in the graph. Returns the number of regions changed."""
    index = GraphIndex(graph)
    regions: list[_Region] = []
    taken: set[int] = set()
    for node in graph.node:
        region = _region_from(index, node) if kind(node) == "Reshape" else None
        if region is not None and not region.members & taken:
            regions.append(region)
            taken |= region.members
    if regions:
        _rewrite(index, regions)
    return len(regions)


def _region_from(index: GraphIndex, start: onnx.NodeProto) -> _Region | None:
    taken, rows = index.shapes.get(start.input[0]), index.shapes.get(start.output[0])
    if taken is None or rows is None or len(rows) != 2 or len(taken) < 2 or taken[-1] != rows[-1]:
        return None
    region = _Region(start, [], [])
    tensors = [start.output[0]]
    for name in tensors:  # grows while it is walked
        if name in index.outputs or name in index.captured:
            return None
        for reader in index.readers.get(name, []):
            if _restores(index, reader, name, taken):
                region.ends.append(reader)
            elif not any(reader is each for each in region.inner):
                region.inner.append(reader)
                tensors += reader.output
    inside = frozenset(tensors)
    works = region.inner and _ends_well(index, region) and all(_by_rows(index, node, inside) for node in region.inner)
    return region if works and _is_worth_it(index, region) else None


def _ends_well(index: GraphIndex, region: _Region) -> bool:
    """Of several ends none may be visible outside: all but one lose their names."""
    visible = [end.output[0] in index.outputs or end.output[0] in index.captured for end in region.ends]
    return bool(visible) and (len(visible) == 1 or not any(visible))


def _restores(index: GraphIndex, node: onnx.NodeProto, name: str, taken: tuple[int, ...]) -> bool:
    given = index.shapes.get(node.output[0])
    return kind(node) == "Reshape" and node.input[0] == name and given is not None and given[:-1] == taken[:-1]


def _by_rows(index: GraphIndex, node: onnx.NodeProto, inside: frozenset[str]) -> bool:
    if kind(node) == "Gemm":
        others = [index.array(name) for name in node.input[1:]]
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return (
            plain
            and not attribute(node, "transA", 0)
            and node.input[0] in inside
            and all(array is not None for array in others)
            and all(array is None or _broadcasts(array.shape) for array in others[1:])
        )
    if kind(node) not in ELEMENTWISE:
        return False
    others = [name for name in node.input if name and name not in inside]
    return all(name in index.weights and _broadcasts(tuple(index.weights[name].dims)) for name in others)


def _broadcasts(shape: tuple[int, ...]) -> bool:
    """True if a constant is the same for every row."""
    return all(size == 1 for size in shape[:-1]) and len(shape) <= 2


def _is_worth_it(index: GraphIndex, region: _Region) -> bool:
    added = sum(kind(node) == "Gemm" and _bias(index, node) != "" for node in region.inner)
    return added <= len(region.ends) + 1


def _bias(index: GraphIndex, gemm: onnx.NodeProto) -> str:
    """Name of the bias; "" where there is none, or where it adds nothing."""
    name = gemm.input[2] if len(gemm.input) > 2 else ""
    array = index.array(name)
    return "" if array is None or not array.any() else name


def _rewrite(index: GraphIndex, regions: list[_Region]) -> None:
    renamed: dict[str, str] = {}
    for end in (end for region in regions for end in region.ends):
        # What the first Reshape at the end read takes the name of what it made, which others may know.
        first = renamed.setdefault(end.input[0], end.output[0])
        if first != end.output[0]:
            index.replace(end.output[0], first)
    renamed |= {region.start.output[0]: region.start.input[0] for region in regions}
    inner = {id(node) for region in regions for node in region.inner}
    gone = {id(node) for region in regions for node in (region.start, *region.ends)}
    nodes: list[onnx.NodeProto] = []
    for node in index.graph.node:
        if id(node) in inner:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]
            nodes += _product(index, node) if kind(node) == "Gemm" else [node]
        elif id(node) not in gone:
            nodes.append(node)
    del index.graph.node[:]
    index.graph.node.extend(nodes)


def _product(index: GraphIndex, gemm: onnx.NodeProto) -> list[onnx.NodeProto]:
    from onnx import helper

    weight, bias, output = gemm.input[1], _bias(index, gemm), gemm.output[0]
    array = index.array(weight)
    if array is not None and attribute(gemm, "transB", 0):
        weight = index.set_weight(f"{weight}_t", np.ascontiguousarray(array.T))
    if not bias:
        return [helper.make_node("MatMul", [gemm.input[0], weight], [output], name=gemm.name)]
    product = index.free(f"{output}_product")
    return [
        helper.make_node("MatMul", [gemm.input[0], weight], [product], name=gemm.name),
        helper.make_node("Add", [product, bias], [output], name=f"{gemm.name}/bias"),
    ]
