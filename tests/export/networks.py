"""Tiny torch networks and ONNX graphs, made by code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs


def random_inputs(path: Path) -> dict[str, NDArray[Any]]:
    return random_inputs_of(tensor_specs(load_onnx(path))[0])


class SmallNet(torch.nn.Module):
    """Convolution, batch norm, residual, depthwise, pooling, linear: what edge networks are made of."""

    def __init__(self, channels: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU6()
        )
        self.depthwise = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = torch.nn.Linear(8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        features = features + self.depthwise(features).relu()
        out: torch.Tensor = self.head(features.mean((2, 3)).flatten(1))
        return out


class DictNet(SmallNet):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]  # that is the point
        features = self.stem(images)
        return {"mask": features, "scores": features.mean((2, 3))}


def small_net(seed: int = 0) -> SmallNet:
    torch.manual_seed(seed)
    net = SmallNet()
    with torch.no_grad():  # so that batch norm is not an identity
        net.stem[1].running_mean.uniform_(-1, 1)  # type: ignore[operator]  # a buffer, typed as a module
        net.stem[1].running_var.uniform_(0.5, 2)  # type: ignore[operator]  # as above
    return net


def wide_net() -> torch.nn.Sequential:
    """Weights enough that the graph around them hardly counts."""
    torch.manual_seed(0)
    convolution, pool = torch.nn.Conv2d(3, 128, 9), torch.nn.AdaptiveAvgPool2d(1)
    return torch.nn.Sequential(convolution, torch.nn.ReLU(), pool, torch.nn.Flatten(), torch.nn.Linear(128, 100))


def images(batch: int = 1, size: int = 16, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((batch, 3, size, size), dtype=np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str]],
    weights: Mapping[str, NDArray[Any]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A float32 model of the given nodes."""
    for index, node in enumerate(nodes):
        node.name = node.name or f"node{index}"
    made = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
