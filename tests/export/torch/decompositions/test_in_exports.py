"""Networks with operators that an exporter refuses or writes wrongly: their files answer as they do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
import torch
import torch.nn.functional as F
from benchmarks.step_checks import verify_module
from torchvision.ops import deform_conv2d

from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch import onnx_export
from eightfold.export.torch.onnx_export import Exporter, export_onnx
from eightfold.export.verify.verify import Tolerance
from eightfold.files import sha256_of_file
from tests.export.networks import images

EXACT = Tolerance(max_rel_error=1e-5)


class Pools(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = F.pad(images, (0, 3))
        sizes = (x.shape[2] // 3, 7)
        volume = x.reshape(-1, 3, 4, 4, 19)
        return (
            F.adaptive_max_pool2d(x, sizes),
            F.adaptive_avg_pool2d(x, sizes),
            F.adaptive_max_pool3d(volume, 3),
            F.adaptive_avg_pool3d(volume, 3),
            F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
        )


class Resizes(torch.nn.Module):
    """A table of positions as in vision transformers, and an image."""

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.nn.Parameter(torch.rand(1, 3, 5, 5))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        places = F.interpolate(self.places, size=images.shape[-2:], mode="bicubic", antialias=True)
        return images + places, F.interpolate(images, scale_factor=0.6, mode="bilinear", antialias=True)


class Windows(torch.nn.Module):
    """Attention within windows: (batch, heads, windows, places, channels)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        windows = images.reshape(-1, 3, 4, 4, 4, 4).transpose(3, 4).reshape(-1, 3, 16, 16, 1)
        x = windows * torch.tensor([1.0, -0.5, 2.0])
        return F.scaled_dot_product_attention(x, 2 * x, x + 1)


class Deformed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.offset, self.mask = torch.nn.Conv2d(3, 18, 3, 2, 1), torch.nn.Conv2d(3, 9, 3, 2, 1)
        self.weight = torch.nn.Parameter(torch.rand(4, 3, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        offset, mask = 3 * self.offset(images), self.mask(images).sigmoid()
        made: torch.Tensor = deform_conv2d(images, offset, self.weight, stride=2, padding=1, mask=mask)
        return made


NETWORKS = (Pools, Resizes, Windows, Deformed)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_both_exporters_write_them(tmp_path: Path, network: type[torch.nn.Module], exporter: Exporter) -> None:
    model = network().eval()
    file = export_onnx(model, tmp_path / "net.onnx", batch=2, image_size=16, exporter=exporter)
    verify_module(model, file, images(2), tolerance=EXACT)


@pytest.mark.parametrize("network", [Pools, Resizes, Windows])
def test_boards_of_old_opsets_get_them(tmp_path: Path, network: type[torch.nn.Module]) -> None:
    model = network().eval()
    file = export_onnx(model, tmp_path / "net.onnx", batch=1, image_size=16, targets=["tensorrt:8.2"])
    verify_module(model, file, images(1), tolerance=EXACT)


@pytest.mark.parametrize("network", NETWORKS)
def test_tensorrt_builds_engines_of_them(tmp_path: Path, network: type[torch.nn.Module]) -> None:
    pytest.importorskip("tensorrt_rtx")
    file = export_onnx(network().eval(), tmp_path / "net.onnx", batch=1, image_size=16)
    assert build_engine(file, tmp_path / "net.engine", target="rtx:sm86", precision="fp16").stat().st_size > 0


def test_a_network_without_them_is_exported_as_if_there_were_no_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch runs attention of its own modules in another way while calls are watched."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.TransformerEncoderLayer(256, 2, 8, batch_first=True))
    model.requires_grad_(False)
    watched = export_onnx(model, tmp_path / "watched.onnx", batch=1, image_size=16)

    @contextlib.contextmanager
    def no_rules() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(operators=set())

    monkeypatch.setattr(onnx_export, "decomposed", no_rules)
    plain = export_onnx(model, tmp_path / "plain.onnx", batch=1, image_size=16)
    assert sha256_of_file(watched) == sha256_of_file(plain)
    assert onnx_export.exporter_of(onnx.load(plain)) == "dynamo"
