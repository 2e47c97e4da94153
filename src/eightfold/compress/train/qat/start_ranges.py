"""Ranges of layers' inputs to start from: those of a calibrated graph, or of images that stream through the module."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.calib.observers import Observer, make_observer
from eightfold.calib.ranges import Ranges, TensorRange
from eightfold.compress.train.qat.joins import find_joins
from eightfold.compress.train.qat.prepare import input_signs
from eightfold.compress.types import Args, ExampleInputs
from eightfold.errors import CalibrationError
from eightfold.export.verify.module_runs import evaluating
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import read_graph
from eightfold.onnx_graph.layers import layers_of


def layer_ranges(
    model: nn.Module, example_inputs: ExampleInputs, onnx_path: PathLike, ranges: Ranges
) -> dict[str, TensorRange]:
    """Name of each layer of a float module -> range of its input, from the calibration of its exported graph.

    Layers are matched in the order in which they run, by the shapes of their weights.

    Args:
        onnx_path: the graph that was calibrated; exported from `model`.

    Raises:
        CalibrationError: the ranges are of another graph, or the graph of another network.
    """
    graph = read_graph(onnx_path)
    ranges.check_graph(graph.digest(), str(onnx_path))
    nodes = iter(layers_of(graph))
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    found: dict[str, TensorRange] = {}
    for name in input_signs(model, args):
        weight: Any = model.get_submodule(name).weight
        shapes = tuple(weight.shape), tuple(weight.shape[::-1])
        node = next((node for node in nodes if node.shape in shapes), None)
        if node is None:
            raise CalibrationError(
                f"{onnx_path} has no layer for {name!r} {shapes[0]}",
                allowed="a graph exported from this module, before it is prepared",
            )
        if node.node.input[0] in ranges.tensors:
            found[name] = ranges.tensors[node.node.input[0]]
    return found


def observed_ranges(model: nn.Module, batches: Iterable[Args], *, method: str = "mse") -> dict[str, TensorRange]:
    """Name of each layer of a float module -> range of its input over batches; likewise of each join of branches
    ("add0", "cat1" ...), for schemes that round those.

    Args:
        batches: positional arguments of one forward call each.
        method: a calibration method.
    """
    names = {id(module): name for name, module in model.named_modules() if type(module) in (nn.Conv2d, nn.Linear)}
    observers: dict[str, Observer] = {}

    def join(name: str, value: Tensor) -> None:
        observers.setdefault(name, make_observer(method)).see(value.detach().float().cpu().numpy())

    def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        join(names[id(module)], inputs[0])

    handles = [m.register_forward_pre_hook(see) for m in model.modules() if id(m) in names]
    try:
        with evaluating(model), torch.no_grad():
            for args in batches:
                find_joins(model, args, join)
    finally:
        for handle in handles:
            handle.remove()
    return {name: observer.range() for name, observer in observers.items()}
