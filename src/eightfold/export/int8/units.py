"""Layers that go to INT8, or stay in float, together: one with weights, and the functions of its values alone.

A convolution left in float gains nothing where the sigmoid and the product of its SiLU are rounded all the same.
"""

from __future__ import annotations

from collections.abc import Collection

from eightfold.calib.functions_behind import OF_ONE_VALUE, OF_SEVERAL
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.layers import label
from eightfold.onnx_graph.operators import kind

FUNCTIONS = OF_ONE_VALUE | OF_SEVERAL


def units_of(graph: ModelGraph, labels: Collection[str]) -> list[tuple[str, ...]]:
    """The nodes called `labels` in units, in the order of the graph; each node in one."""
    units: list[list[str]] = []
    made_in: dict[str, int] = {}  # tensor -> the unit that computes it
    for node in graph.model.graph.node:
        read = {made_in.get(name, -1) for name in node.input if name in made_in or name == graph.input.name}
        place = next(iter(read)) if kind(node) in FUNCTIONS and len(read) == 1 else -1
        if place < 0:
            place = len(units)
            units.append([])
        if label(node) in labels:
            units[place].append(label(node))
        made_in.update(dict.fromkeys(node.output, place))
    return [tuple(unit) for unit in units if unit]
