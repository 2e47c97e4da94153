"""Reshape to a matrix, Gemm, Reshape back: MatMul works on the last two axes of any tensor, so x W + b needs neither.
Some simplifiers write the long form; builders fuse the short one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.export.passes.graph_index import GraphIndex, attribute

if TYPE_CHECKING:
    import onnx


def matmul_from_gemm(graph: onnx.GraphProto) -> int:
    """Needs inferred shapes in the graph. Returns the number of places changed."""
    from onnx import helper

    index = GraphIndex(graph)
    nodes: list[onnx.NodeProto] = []
    replaced: dict[int, list[onnx.NodeProto]] = {}
    gone: set[int] = set()
    for gemm in graph.node:
        found = _place(index, gemm)
        if found is None:
            continue
        before, after, weight = found
        matmul_output = after.output[0] if len(gemm.input) < 3 else f"{after.output[0]}_product"
        made = [helper.make_node("MatMul", [before.input[0], weight], [matmul_output], name=gemm.name)]
        if len(gemm.input) > 2:
            bias = helper.make_node("Add", [matmul_output, gemm.input[2]], [after.output[0]], name=f"{gemm.name}/bias")
            made.append(bias)
        replaced[id(after)] = made
        gone |= {id(gemm)} | ({id(before)} if index.only_reader(before.output[0]) is gemm else set())
    for node in graph.node:
        if id(node) not in gone:
            nodes += replaced.get(id(node), [node])
    del graph.node[:]
    graph.node.extend(nodes)
    return len(replaced)


def _place(index: GraphIndex, gemm: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto, str] | None:
    """The reshapes around a Gemm and the weight to use, where the three nodes together are a MatMul."""
    if gemm.op_type != "Gemm" or attribute(gemm, "transA", 0) or _scaled(gemm):
        return None
    before, after = index.producer.get(gemm.input[0]), index.only_reader(gemm.output[0])
    if before is None or after is None or before.op_type != "Reshape" or after.op_type != "Reshape":
        return None
    if after.input[0] != gemm.output[0]:
        return None
    taken, given = index.shapes.get(before.input[0]), index.shapes.get(after.output[0])
    weight = index.array(gemm.input[1])
    if taken is None or given is None or weight is None or taken[:-1] != given[:-1]:
        return None
    if attribute(gemm, "transB", 0):
        weight = np.ascontiguousarray(weight.T)
    if weight.shape != (taken[-1], given[-1]):
        return None
    name = gemm.input[1] if not attribute(gemm, "transB", 0) else index.set_weight(f"{gemm.input[1]}_t", weight)
    return before, after, name


def _scaled(gemm: onnx.NodeProto) -> bool:
    return bool(attribute(gemm, "alpha", 1.0) != 1.0 or attribute(gemm, "beta", 1.0) != 1.0)
