"""INT8 files are smaller than the FP32 files that they are made from, over networks of the coverage list.

The whole list: `python benchmarks/int8_sizes.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

import eightfold as ef
from eightfold.export.torch.onnx_export import export_onnx

LIST = Path(__file__).parents[3] / "benchmarks" / "coverage_names.txt"
SAMPLE = ("squeezenet1_1", "shufflenet_v2_x0_5", "timm:test_efficientnet", "timm:test_vit4", "timm:convnextv2_atto")


def test_the_sample_is_of_the_list() -> None:
    assert set(SAMPLE) <= set(LIST.read_text().split())


@pytest.mark.parametrize(
    ("name", "target"), [*((name, "cpu-x86") for name in SAMPLE), (SAMPLE[0], "cpu-arm"), (SAMPLE[0], "openvino")]
)
def test_the_int8_file_is_smaller(tmp_path: Path, name: str, target: str) -> None:
    source, _, kind = name.rpartition(":")
    size = 160 if name == "timm:test_vit4" else 64
    if source:
        model = pytest.importorskip("timm").create_model(kind).eval()
    else:
        model = torchvision.models.get_model(kind, weights=None).eval()
    torch.manual_seed(0)
    path = export_onnx(model, tmp_path / "a.onnx", batch=1, image_size=size)
    ranges = ef.calibrate(path, iter(torch.rand(1, 3, size, size).numpy()), None, method="minmax", batch=1)
    written, report = ef.quantize(path, ranges, tmp_path / "q.onnx", target=target, form="qdq")
    assert report.quantized
    assert Path(written).stat().st_size < 0.5 * path.stat().st_size
