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


class Mixed(nn.Module):
    """Images of one batch see each other."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize("name", [*FOLLOWS, "linear"])
@pytest.mark.parametrize(("was", "batch"), [(1, 3), (2, 3), (4, 1)])
def test_another_batch_answers_like_the_module(tmp_path: Path, name: str, was: int, batch: int) -> None:
    torch.manual_seed(0)
    model = (FOLLOWS[name] if name in FOLLOWS else FIXED[name][0])().eval()
    path = export_onnx(model, tmp_path / "m.onnx", batch=was, image_size=32, exporter="torchscript")
    images = torch.rand(batch, 3, 32, 32)
    (found,) = run_onnx(freeze_onnx(path, tmp_path / "other.onnx", batch=batch), {"images": images.numpy()}).values()
    np.testing.assert_allclose(found, model(images).detach().numpy(), atol=1e-5)


def test_a_batch_in_computed_shapes_follows(tmp_path: Path) -> None:
    model = Shuffled(3, 8, 3, 1, 1).eval()
    path = export_onnx(model, tmp_path / "m.onnx", batch=1, image_size=32, exporter="torchscript")
    images = torch.rand(3, 3, 32, 32)
    (found,) = run_onnx(freeze_onnx(path, tmp_path / "other.onnx", batch=3), {"images": images.numpy()}).values()
    np.testing.assert_allclose(found, model(images).detach().numpy(), atol=1e-5)


def test_a_batch_that_is_mixed_is_refused(tmp_path: Path) -> None:
    path = export_onnx(Mixed().eval(), tmp_path / "m.onnx", batch=2, image_size=32)
    with pytest.raises(
        ModelError, match=r"the batch is fixed at 2 inside of the graph: at 3, .* is another; allowed: batch 2"
    ):
        freeze_onnx(path, tmp_path / "other.onnx", batch=3)
    assert not (tmp_path / "other.onnx").exists()
