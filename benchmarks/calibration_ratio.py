"""Calibration beside plain FP32 inference of the same images, as a ratio in one run, with what it is made of.

Usage: python benchmarks/calibration_ratio.py [NETWORK ...] [--images N] [--rounds R]

Plain inference is onnxruntime as it comes, batch 8, outputs of the network alone. The parts of a calibration are
measured on their own: the same network with every observed activation as an output, in buffers that stay; one pass over
these activations for their extremes; and one that also counts them in bins. One thread; processor seconds, the least of
R alternating rounds, so that other work on the machine counts little. Start-up (sessions, digests) is a row of its own.
The table goes to benchmarks/results/calibration_ratio.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eightfold.calib.calibrate import calibrate
from eightfold.calib.histogram import Histogram
from eightfold.calib.observers import METHODS, extremes
from eightfold.calib.session import open_runner
from eightfold.onnx_graph.graph import read_graph
from eightfold.runtime.devices.devices import describe_device

RESULTS = Path(__file__).parent / "results" / "calibration_ratio.md"
NETWORKS = ("mobilenet_v2", "resnet50", "yolov8n")
BATCH = 8


def make_files(name: str, folder: Path) -> tuple[Path, Path, int]:
    """A network with random weights as a file for one image and one for a batch, and its image size."""
    import torch
    from torchvision import models

    from eightfold.export.torch.onnx_export import export_onnx

    torch.manual_seed(0)
    if name.startswith("yolo"):
        from ultralytics import YOLO

        model, size = YOLO(f"{name}.yaml").model.eval(), 320
    else:
        model, size = models.get_model(name, weights=None).eval(), 224
    one, many = (export_onnx(model, folder / f"b{batch}.onnx", batch=batch, image_size=size) for batch in (1, BATCH))
    return Path(one), Path(many), size


def parts_of(path: Path, batched: Path, images: list[Any]) -> dict[str, Callable[[], object]]:
    """What is timed, by its name."""
    import onnxruntime

    graph = read_graph(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    plain = onnxruntime.InferenceSession(str(batched), options, providers=["CPUExecutionProvider"])
    runner = open_runner(graph, graph.observed, images[0], batch=BATCH, threads=1, reuse=True)
    (values,) = list(runner(images[: runner.rows]))
    repeats = len(images) // runner.rows
    histograms = {name: Histogram() for name in values}

    def all_outputs() -> None:
        for first in range(0, len(images), runner.rows):
            for _ in runner(images[first : first + runner.rows]):
                pass

    def inference() -> None:
        for first in range(0, len(images), BATCH):
            plain.run(None, {graph.input.name: np.stack(images[first : first + BATCH])})

    parts: dict[str, Callable[[], object]] = {
        "plain inference": inference,
        "all activations as outputs": all_outputs,
        "extremes of them": lambda: [extremes(each) for _ in range(repeats) for each in values.values()],
        "extremes and counts of them": lambda: [
            histograms[name].add(each) for _ in range(repeats) for name, each in values.items()
        ],
        "start-up": lambda: calibrate(path, images[:1], None, method="minmax", threads=1),
    }
    for method in METHODS:
        parts[f"calibrate, {method}"] = lambda method=method: calibrate(path, images, None, method=method, threads=1)  # type: ignore[misc]
    return parts


def measured(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds of each, the least of all rounds."""
    least = dict.fromkeys(parts, np.inf)
    for _ in range(rounds):
        for name, call in parts.items():
            begin = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - begin)
    return least


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    columns: dict[str, dict[str, float]] = {}
    for name in asked.networks:
        with tempfile.TemporaryDirectory() as folder:
            path, batched, size = make_files(name, Path(folder))
            random = np.random.default_rng(0)
            images = [random.random((3, size, size), dtype=np.float32) for _ in range(asked.images)]
            columns[name] = measured(parts_of(path, batched, images), asked.rounds)
        print(name, columns[name], flush=True)
        RESULTS.write_text(table(columns, asked.images))
    print(table(columns, asked.images))


def table(columns: dict[str, dict[str, float]], images: int) -> str:
    """Seconds of each part of each network, as text."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for part in next(iter(columns.values())):
        cells = []
        for column in columns.values():
            ratio, ms = column[part] / column["plain inference"], 1e3 * column[part] / images
            cells.append(f"{ratio:.2f} ({ms:.1f} ms an image)")
        lines.append(f"| {part} | {' | '.join(cells)} |")
    head = (
        "# Calibration beside plain inference\n\n"
        f"{describe_device().line()}; one thread, {images} images, batch {BATCH}; times plain inference "
        "(processor seconds, the least of alternating rounds).\n"
        "`python benchmarks/calibration_ratio.py` writes this table.\n\n"
    )
    return head + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
