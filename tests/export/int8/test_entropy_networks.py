"""Whole networks of different activations: ranges by entropy are never far below the whole ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import eightfold as ef
from tests.export.int8.graphs import answers, sqnr_db

ROWS = np.random.default_rng(0).normal(0.3, 1, size=(12, 3, 24, 24)).astype(np.float32)
ACTIVATIONS: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky relu": nn.LeakyReLU(0.1),
    "elu": nn.ELU(),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "hard swish": nn.Hardswish(),
    "hard sigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "mish": nn.Mish(),
}


class Gated(nn.Module):
    """Convolutions, a residual, a gate by hard sigmoid as in squeeze and excitation, and a map as in text detectors."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), activation)
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), activation, nn.Conv2d(16, 16, 1))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Hardsigmoid())
        self.head = nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1), activation, nn.Conv2d(32, 4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.depthwise(x) * self.gate(x)
        answer: torch.Tensor = self.head(x)
        return answer


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_entropy_is_never_3_db_below_minmax(tmp_path: Path, name: str) -> None:
    torch.manual_seed(len(name))
    path = ef.export_onnx(Gated(ACTIVATIONS[name]).eval(), tmp_path / "a.onnx", batch=1, image_size=24)
    ((output, expected),) = answers(path, ROWS).items()
    found = {}
    for method in ("minmax", "entropy"):
        ranges = ef.calibrate(path, ROWS, None, method=method)
        for target in ("cpu-x86", "tensorrt"):
            written, _ = ef.quantize(path, ranges, tmp_path / "int8.onnx", target=target, form="qdq")
            found[method, target] = sqnr_db(expected, answers(written, ROWS)[output])
    for target in ("cpu-x86", "tensorrt"):
        assert found["entropy", target] > found["minmax", target] - 3
        assert found["entropy", target] > 15
