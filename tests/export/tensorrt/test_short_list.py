"""The real parser and the real builder take every network of the short list, in float16 and in INT8.

Small images, random weights, and few and narrow blocks of the networks that are large: what counts is which operators
the graphs are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation import deeplabv3, fcn, lraspp
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer

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


def bottlenecks(**options: Any) -> ResNet:
    return ResNet(Bottleneck, [1, 1, 1, 1], width_per_group=16, **options)


def small_mobilenet() -> torch.nn.Module:
    network: torch.nn.Module = torchvision.models.mobilenet_v3_small(weights=None, dilated=True)
    return network


# The same blocks, fewer and narrower: each stage has one of every kind, as its operators are all that counts here.
SMALL: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": lambda: ResNet(BasicBlock, [1, 1, 1, 1]),
    "resnet50": bottlenecks,
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(width_mult=0.25),
    "efficientnet_b0": lambda: EfficientNet(
        [MBConvConfig(1, 3, 1, 32, 16, 1, 1, 1), MBConvConfig(6, 5, 2, 16, 24, 2, 1, 1)], 0.2
    ),
    "densenet121": lambda: DenseNet(8, (2, 2, 2, 2), 16),
    "regnet_y_400mf": lambda: RegNet(BlockParams.from_init_params(4, 16, 24.0, 2.5, 8, se_ratio=0.25)),
    "convnext_tiny": lambda: ConvNeXt([CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 1)]),
    "googlenet": lambda: torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False),
    "swin_t": lambda: SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7]),
    "vit_b_16": lambda: VisionTransformer(SIZE, 16, 2, 2, 32, 64),
    "lraspp_mobilenet_v3_large": lambda: lraspp._lraspp_mobilenetv3(small_mobilenet(), 21),
    "deeplabv3_mobilenet_v3_large": lambda: deeplabv3._deeplabv3_mobilenetv3(small_mobilenet(), 21, None),
    "fcn_resnet50": lambda: fcn._fcn_resnet(bottlenecks(replace_stride_with_dilation=[False, True, True]), 21, None),
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    source, _, rest = name.rpartition(":")
    if source == "ultralytics":
        network: torch.nn.Module = pytest.importorskip("ultralytics").YOLO(f"{rest}.yaml", verbose=False).model
    elif source == "timm":
        network = pytest.importorskip("timm").create_model(rest)
    else:
        network = SMALL[name]() if name in SMALL else torchvision.models.get_model(name, weights=None)
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
