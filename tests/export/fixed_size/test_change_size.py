"""A file fixed at one size gets another one, or is refused by the node that holds it. Oracle: the torch module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eightfold.errors import ModelError
from eightfold.export.fixed_size.fix_shapes import freeze_onnx
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.export.verify.verify import run_onnx


class Upsampled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(x), size=x.shape[2:], mode="bilinear")


class Cropped(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, : x.shape[2] - 2, 1:]


class Shuffled(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        seen = super().forward(x)
        batch, channels, height, width = seen.shape
        return seen.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)


class Flattened(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(2)


FOLLOWS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    "classifier": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    "raw head": lambda: Flattened(3, 8, 3, 2, 1),
    "scaled": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 2, 1)),
}
FIXED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "resize": (lambda: Upsampled(3, 4, 3, 2, 1), "Resize .* holds it"),
    "slice": (lambda: Cropped(3, 4, 3, 1, 1), "Slice .* holds it"),
    "reshape": (lambda: Shuffled(3, 8, 3, 1, 1), "fixed inside of the graph|Reshape"),
    "pool": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.AvgPool2d(16)), "AveragePool .* holds it"),
    "linear": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 256, 4)), "Gemm|Reshape"),
}


@pytest.mark.parametrize(
    ("name", "exporter"),
    [
        *((name, "torchscript") for name in FOLLOWS),
        *((name, "dynamo") for name in FOLLOWS if name != "raw head"),  # it writes the map's area into the Reshape
    ],
)
def test_the_new_size_answers_like_the_module(tmp_path: Path, name: str, exporter: Exporter) -> None:
    torch.manual_seed(0)
    model = FOLLOWS[name]().eval()
    path = export_onnx(model, tmp_path / "m.onnx", batch=1, image_size=32, exporter=exporter)
    other = freeze_onnx(path, tmp_path / "other.onnx", image_size=(24, 40))
    images = torch.rand(1, 3, 24, 40)
    (found,) = run_onnx(other, {"images": images.numpy()}).values()
    np.testing.assert_allclose(found, model(images).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("name", FIXED)
def test_a_size_inside_of_the_graph_is_refused(tmp_path: Path, name: str, exporter: Exporter) -> None:
    make, words = FIXED[name]
    path = export_onnx(make().eval(), tmp_path / "m.onnx", batch=1, image_size=32, exporter=exporter)
    with pytest.raises(ModelError, match=words):
        freeze_onnx(path, tmp_path / "other.onnx", image_size=(24, 40))
    assert not (tmp_path / "other.onnx").exists()
