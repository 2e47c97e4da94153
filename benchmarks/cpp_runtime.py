"""What the C++ runtime costs on top of the model: each line is a promise, measured in one run.

Usage: python benchmarks/cpp_runtime.py

Builds what it measures. MobileNetV2 with random weights at 224x224, onnxruntime with 2 threads. Ratios are of medians,
both sides taking turns in one run. The table is printed and kept in benchmarks/results/cpp_runtime.md.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision

import eightfold as ef
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bench.interleave import Schedule, alternate
from eightfold.runtime.bench.timing import speedup
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.devices.devices import describe_device
from eightfold.text_table import text_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "cpp"))  # the tests' view of the C interface is used here as well
from native import NativeEngine, image_of, load_library  # noqa: E402

CHECK = ROOT / "src" / "eightfold" / "runtime" / "cpp" / "check.sh"
BUILD = ROOT / "build" / "cpp"
RESULT = Path(__file__).parent / "results" / "cpp_runtime.md"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
THREADS = 2


@dataclass(frozen=True)
class Line:
    """One promise and what was measured."""

    what: str
    measured: str
    bar: str
    holds: bool

    @property
    def cells(self) -> tuple[str, ...]:
        return self.what, self.measured, self.bar, "yes" if self.holds else "NO"


def make_bundle(folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(weights=None).eval()
    onnx = ef.simplify(ef.export_onnx(model, folder / "model.onnx", batch=1, image_size=224))
    artifact = onnx_artifact(onnx, id="b1", inside="b1.onnx", variant="pruned")
    bundle = write_bundle(
        folder / "bundle",
        name="mobilenet_v2",
        task=Task(kind="classify", decode="classify"),
        preprocess=Preprocess.model_validate({"height": 224, "width": 224} | IMAGENET),
        artifacts=[artifact],
        files={"b1.onnx": onnx},
    )
    return bundle, Path(onnx)


def measured_in_cpp(bundle: Path, onnx: Path) -> list[Line]:
    command = [BUILD / "bench" / "benchmarks" / "eightfold-bench", bundle, onnx, str(THREADS)]
    numbers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ratio = numbers["engine_ms"] / numbers["raw_ms"]
    spread = f"{numbers['least_ratio']:.3f} to {numbers['largest_ratio']:.3f} over 7 pairs of sessions"
    return [
        Line(
            "Engine::run_tensors against the ONNX Runtime call it makes",
            f"{ratio:.3f} x ({numbers['engine_ms']:.2f} ms, {numbers['raw_ms']:.2f} ms; {spread})",
            "at most 1.01 x",
            ratio <= 1.01,
        ),
        Line(
            f"decode 8,400 candidates of 80 classes, NMS ({numbers['detections']} kept)",
            f"{numbers['decode_ms']:.3f} ms",
            "under 0.5 ms",
            numbers["decode_ms"] < 0.5,
        ),
    ]


def preprocessing(bundle: Path, threads: int) -> Line:
    """One 1920x1080 BGR frame to 224x224 normalised NCHW, against OpenCV with numpy."""
    engine = NativeEngine(load_library(BUILD / "release" / "libeightfold.so"), bundle, preprocess_threads=threads)
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8), (0, 0), 3)
    samples = alternate(
        {"opencv": opencv_call(np.asarray(frame)), "cpp": native_call(engine, np.asarray(frame))}, Schedule()
    )
    ratio = 1 / speedup(samples["opencv"].times_s, samples["cpp"].times_s).value
    return Line(
        f"preprocess 1080p to 224x224, {threads} thread{'s' * (threads > 1)}, against blobFromImage + normalise",
        f"{ratio:.2f} x ({np.median(samples['cpp'].times_s) * 1e3:.3f} ms)",
        "at most 0.7 x",
        ratio <= 0.7,
    )


def opencv_call(frame: np.ndarray) -> Callable[[], object]:
    mean = np.array(IMAGENET["mean"], np.float32).reshape(1, 3, 1, 1)
    std = np.array(IMAGENET["std"], np.float32).reshape(1, 3, 1, 1)

    def call() -> object:
        blob = cv2.dnn.blobFromImage(frame, 1 / 255, (224, 224), swapRB=True)
        blob -= mean
        blob /= std
        return blob

    return call


def native_call(engine: NativeEngine, frame: np.ndarray) -> Callable[[], object]:
    """As any C program would: into a buffer that is used again."""
    tensor = np.empty((3, 224, 224), np.float32)
    image = image_of(frame, "bgr")
    function, handle = engine.library.eightfold_engine_preprocess, engine.handle
    arguments = (handle, ctypes.byref(image), tensor.ctypes.data_as(ctypes.c_void_p))
    return lambda: (function(*arguments), engine)  # the engine lives as long as the call


def cold_start(bundle: Path, folder: Path) -> Line:
    picture = folder / "picture.ppm"
    cv2.imwrite(str(picture), np.zeros((224, 224, 3), np.uint8))
    command = [BUILD / "release" / "programs" / "eightfold-run", bundle, picture, "--threads", str(THREADS)]
    times = []
    for _ in range(21):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    seconds = float(np.median(times[1:]))
    return Line(
        "cold start: process to first answer, warm file cache", f"{seconds:.3f} s", "under 0.15 s", seconds < 0.15
    )


def main() -> None:
    subprocess.run([CHECK, "bench"], check=True, env=os.environ | {"PYTHON": sys.executable}, stdout=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, onnx = make_bundle(folder)
        lines = [
            *measured_in_cpp(bundle, onnx),
            preprocessing(bundle, 1),
            preprocessing(bundle, 2),
            cold_start(bundle, folder),
        ]
    device = describe_device()
    rows = [("what", "measured", "bar", "holds"), *(line.cells for line in lines)]
    text = "\n".join([device.line(), device.state.describe(), "", *text_table(rows, left={0, 1, 2, 3})])
    print(text)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(f"# benchmarks/cpp_runtime.py\n\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
