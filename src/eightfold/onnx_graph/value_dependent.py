"""Operators whose results have as many rows as the values ask for, found upstream of an output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

VALUE_DEPENDENT = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress"})


def value_dependent_node(graph: onnx.GraphProto, output: str) -> onnx.NodeProto | None:
    """The last node before `output` whose number of results depends on values; None where there is none."""
    made: dict[str, onnx.NodeProto] = {name: node for node in graph.node for name in node.output if name}
    waiting, seen = [output], {output}
    for name in waiting:  # grows while it is walked: breadth first, so that the nearest comes first
        node = made.get(name)
        if node is None:
            continue
        if node.op_type in VALUE_DEPENDENT:
            return node
        new = [each for each in node.input if each and each not in seen]
        seen.update(new)
        waiting.extend(new)
    return None


def remedy_for_output(graph: onnx.GraphProto, output: str) -> str:
    """Remedy for an output without a fixed shape; "" if no operator prevents one."""
    node = value_dependent_node(graph, output)
    if node is None:
        return ""
    reads = ", ".join(repr(name) for name in node.input[:2] if name)
    return (
        f"{node.op_type} {node.name or node.output[0]!r} decides on the number of rows: end the graph at what it reads "
        f"({reads}), and let the runtime decode (eightfold export --task)"
    )
