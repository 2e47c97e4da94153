"""The real parser and the real builder take every network of the short list, in float16 and in INT8.

Small images and random weights: what counts is which operators the graphs are made of.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from eightfold.calib.calibrate import calibrate
from eightfold.export.int8.quantize import quantize
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx
from eightfold.zoo.short_list import SHORT_LIST

TARGET = "rtx:sm86"
SIZE = 64
# At 64 pixels the last attention has one token, which the builder of TensorRT-RTX 1.7 fails to fuse.
SIZES = {"timm:mobilevit_xxs": 96}
# One fixes its image size, one warns unless told how to begin, three would fetch weights for their backbones.
EXTRA: dict[str, dict[str, Any]] = {
    "vit_b_16": {"image_size": SIZE},
    "googlenet": {"init_weights": True},
    "lraspp_mobilenet_v3_large": {"weights_backbone": None},
    "deeplabv3_mobilenet_v3_large": {"weights_backbone": None},
    "fcn_resnet50": {"weights_backbone": None},
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    source, _, rest = name.rpartition(":")
    if source == "ultralytics":
        network: torch.nn.Module = pytest.importorskip("ultralytics").YOLO(f"{rest}.yaml", verbose=False).model
    elif source == "timm":
        network = pytest.importorskip("timm").create_model(rest)
    else:
        network = torchvision.models.get_model(name, weights=None, **EXTRA.get(name, {}))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT_LIST)
def test_parser_and_builder_refuse_no_node(tmp_path: Path, name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnxsim = pytest.importorskip("onnxsim")
    plain, int8 = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    size = SIZES.get(name, SIZE)
    raw = export_onnx(built(name), tmp_path / "raw.onnx", batch=1, image_size=size)
    save_onnx(onnxsim.simplify(load_onnx(raw))[0], plain)
    image = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    ranges = calibrate(plain, iter(image), None, method="minmax", batch=1)
    _, report = quantize(plain, ranges, int8, target=TARGET)
    layers = {node.name for node in load_onnx(plain).graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm")}
    assert layers
    assert not layers & set(report.kept_float)
    require_built(plain, "fp16")
    require_built(int8, "int8")


def require_built(onnx: Path, precision: EnginePrecision) -> None:
    engine = build_engine(onnx, onnx.with_suffix(".engine"), target=TARGET, precision=precision)
    record = EngineRecord.load(sidecar_path(engine))
    assert record.engine_bytes == engine.stat().st_size > 0
    assert not [text for text in record.messages if text.startswith(("ERROR", "INTERNAL_ERROR"))]
