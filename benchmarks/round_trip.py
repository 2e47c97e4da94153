"""Twenty networks over all tasks, from torch to engines: how far each step moves the answer, how many nodes are left.

Usage: python benchmarks/round_trip.py [NAME ...]

Per network: export and simplify (nodes against onnxsim and onnxslim on the same export, relative error against torch),
the float16 graph (cosine against float32, every float16 tensor rounded), INT8 with ranges of random images, engines
for SM86 in both, and whether a second run gives the same bytes. Weights are random, batch norms are fitted to random
images and zero parameters are filled, because a network whose output is zero agrees with anything.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eightfold.calib.calibrate import calibrate
from eightfold.errors import EightfoldError
from eightfold.export.half import half_onnx
from eightfold.export.half_emulation import verify_half
from eightfold.export.onnx_export import export_onnx
from eightfold.export.onnx_files import load_onnx
from eightfold.export.quantize import quantize
from eightfold.export.simplify import simplify_onnx
from eightfold.export.tensorrt.build import EnginePrecision, build_engine
from eightfold.export.verify import Tolerance, verify_module, verify_onnx
from eightfold.files import sha256_of_file

RESULT = Path(__file__).parent / "results" / "round_trip.md"
TARGET = "rtx:sm86"
# name -> image size
NETWORKS = {
    "resnet18": 224,
    "resnet50": 224,
    "mobilenet_v2": 224,
    "mobilenet_v3_small": 224,
    "efficientnet_b0": 224,
    "shufflenet_v2_x1_0": 224,
    "densenet121": 224,
    "squeezenet1_1": 224,
    "regnet_y_400mf": 224,
    "convnext_tiny": 224,
    "googlenet": 224,
    "swin_t": 224,
    "vit_b_16": 224,
    "lraspp_mobilenet_v3_large": 256,
    "deeplabv3_mobilenet_v3_large": 256,
    "fcn_resnet50": 160,
    "timm:mobilevit_xxs": 256,
    "timm:ghostnet_100": 224,
    "ultralytics:yolov8n": 320,
    "ultralytics:yolo11n": 320,
}


@dataclass(frozen=True)
class Row:
    """One network; sizes of engines in MB, "" where a step failed."""

    network: str
    exporter_nodes: int
    onnxsim: str
    onnxslim: str
    ours: int
    seconds: float
    rel_error: float
    half_cosine: float
    int8_cosine: float
    fp16_engine: str
    int8_engine: str
    stable: str


def build(name: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    source, _, rest = name.rpartition(":")
    if source == "ultralytics":
        from ultralytics import YOLO

        network: torch.nn.Module = YOLO(f"{rest}.yaml", verbose=False).model
    elif source == "timm":
        import timm

        network = timm.create_model(rest)
    else:
        import torchvision

        segments = "lraspp" in name or "deeplab" in name or "fcn" in name
        extra = {"weights_backbone": None} if segments else {}
        extra |= {"init_weights": True} if name == "googlenet" else {}
        network = torchvision.models.get_model(rest, weights=None, **extra)
    return network


def settle(network: torch.nn.Module, size: int) -> torch.nn.Module:
    """Fit batch norms to random images, and fill what is zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout) or type(module).__name__ == "StochasticDepth":
                module.eval()
        network(torch.rand(4, 3, size, size, generator=generator))
    return network.eval()


def peer_nodes(tool: str, path: Path, folder: Path) -> str:
    target = folder / f"peer-{tool}.onnx"
    command = [sys.executable, "-m", "eightfold.export._simplify_child", tool, str(path), str(target)]
    if subprocess.run(command, capture_output=True, timeout=600).returncode:
        return "fails"
    return str(len(load_onnx(target).graph.node))


def engine_size(path: Path, precision: EnginePrecision, folder: Path) -> str:
    try:
        engine = build_engine(path, folder / f"{precision}.engine", target=TARGET, precision=precision)
    except EightfoldError as error:
        return f"refused: {str(error)[:80]}"
    return f"{engine.stat().st_size / 1e6:.1f}"


def graphs(network: torch.nn.Module, size: int, images: NDArray[np.float32], folder: Path) -> list[Path]:
    """Float32, float16 and INT8 graphs."""
    raw = export_onnx(network, folder / "raw.onnx", batch=1, image_size=size)
    small = simplify_onnx(raw, folder / "small.onnx").path
    half = half_onnx(small, folder / "half.onnx")
    ranges = calibrate(small, iter(images), None, method="minmax", batch=1)
    quantize(small, ranges, folder / "int8.onnx", target=TARGET)
    return [raw, small, half, folder / "int8.onnx"]


def measure(name: str, size: int) -> Row:
    network = settle(build(name), size)
    images = np.random.default_rng(2).random((8, 3, size, size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folder = Path(first)
        raw, small, half, int8 = graphs(network, size, images, folder)
        start = time.monotonic()
        simplify_onnx(raw, folder / "again.onnx")
        seconds = time.monotonic() - start
        feeds = {"images": images[:1]}
        again = graphs(settle(build(name), size), size, images, Path(second))
        same = [sha256_of_file(a) == sha256_of_file(b) for a, b in zip((raw, small, half, int8), again, strict=True)]
        return Row(
            network=name,
            exporter_nodes=len(load_onnx(raw).graph.node),
            onnxsim=peer_nodes("onnxsim", raw, folder),
            onnxslim=peer_nodes("onnxslim", raw, folder),
            ours=len(load_onnx(small).graph.node),
            seconds=seconds,
            rel_error=verify_module(network, small, images[:1], tolerance=Tolerance()).max_rel_error or 0.0,
            half_cosine=verify_half(small, load_onnx(half), feeds, tolerance=Tolerance()).cosine or 0.0,
            int8_cosine=verify_onnx(small, int8, feeds, step="int8", tolerance=Tolerance()).cosine or 0.0,
            fp16_engine=engine_size(small, "fp16", folder),
            int8_engine=engine_size(int8, "int8", folder),
            stable="yes" if all(same) else "no",
        )


def table(rows: list[Row]) -> Iterator[str]:
    names = [field.name for field in fields(Row)]
    yield "| " + " | ".join(names) + " |"
    yield "|---" * len(names) + "|"
    for row in rows:
        cells = [getattr(row, name) for name in names]
        yield "| " + " | ".join(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    torch.set_num_threads(1)
    rows: list[Row] = []
    failures = []
    for name in parser.parse_args().names:
        try:
            rows.append(measure(name, NETWORKS[name]))
            print(list(table(rows))[-1], flush=True)
        except (EightfoldError, RuntimeError, ValueError) as error:
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            print(failures[-1], flush=True)
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(["# Round trip", "", machine, "", *table(rows), "", *failures]).rstrip() + "\n")


if __name__ == "__main__":
    main()
