"""Layers with weights by their places in a graph, which are the same before and after pruning and in every export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import read_graph
from eightfold.onnx_graph.layers import layers_of


def weighted_labels(onnx_path: PathLike) -> list[str]:
    """Labels of the nodes with constant weights (convolutions, products), in execution order."""
    return [layer.name for layer in layers_of(read_graph(onnx_path))]


def labels_at(onnx_path: PathLike, places: Sequence[int], layers: int) -> list[str]:
    """Labels of the nodes at `places` of a graph that has so many `layers` with weights.

    Raises:
        UsageError: the graph has another number of them.
    """
    labels = weighted_labels(onnx_path)
    if len(labels) != layers:
        raise UsageError(
            f"{Path(onnx_path).name} has {len(labels)} layers with weights, and precisions were chosen for {layers}",
            allowed="the network that the plan is of",
            remedy="choose them again for this network (--precision mixed)",
        )
    return [labels[place] for place in places]
