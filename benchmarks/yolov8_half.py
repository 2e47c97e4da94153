"""YOLOv8n at half of its channels: unmodified ultralytics code, random weights, from the YAML to both runtimes.

Usage: python benchmarks/yolov8_half.py [eightfold-run]
With the path of `eightfold-run` the boxes of the C++ runtime are compared with those of the Python one, on the
photographs that ultralytics ships. An engine for SM86 is built where TensorRT-RTX is installed.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import ultralytics
from torch import nn
from ultralytics.utils import ASSETS

import eightfold as ef
from eightfold.calib.images.decode import read_image
from eightfold.extras import installed
from eightfold.runtime.devices.devices import describe_device
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import load_source

RESULT = Path(__file__).parent / "results/yolov8_half.md"
SIDE, MULTIPLE, REPEATS = 640, 8, 5
# Random weights know nothing: down to this score there are some hundred boxes.
SCORE = 1e-5


def main(program: str) -> None:
    torch.set_num_threads(1)
    loaded = load_source("ultralytics:yolov8n", SourceOptions(size=(SIDE, SIDE)))
    image = torch.zeros(1, 3, SIDE, SIDE)
    rows = [("ultralytics", ultralytics.__version__)]
    wall, processor = [], []
    for _ in range(REPEATS):
        network = copy.deepcopy(loaded.module)
        start, busy = time.perf_counter(), time.process_time()
        done = ef.prune(network, (image,), keep_ratio=0.5, multiple=MULTIPLE)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    figures = f"{np.median(wall):.2f} s, of processor time {np.median(processor):.2f} s (medians of {REPEATS})"
    rows.append((f"prune, at {SIDE}x{SIDE}, one thread", figures))
    rows += [("report", line) for line in done.describe().splitlines() if line.startswith(("parameters", "MACs"))]
    widths = {name: each.out_channels for name, each in network.named_modules() if isinstance(each, nn.Conv2d)}
    odd = {name: width for name, width in widths.items() if width % MULTIPLE}
    rows.append(
        (f"widths that are no multiple of {MULTIPLE}", ", ".join(f"{n}: {w}" for n, w in odd.items()) or "none")
    )
    with tempfile.TemporaryDirectory() as folder:
        rows += exported(loaded, network, Path(folder), program)
    lines = ["# YOLOv8n at half of its channels", "", "| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    RESULT.write_text("\n".join([*lines, "", "```", describe_device().describe(), "```"]) + "\n")
    print(RESULT.read_text())


def exported(loaded: LoadedModel, network: nn.Module, folder: Path, program: str) -> list[tuple[str, str]]:
    """Rows of the bundle, the engine and the boxes."""
    options = {**loaded.task.options, "score_threshold": SCORE, "max_detections": 300}
    task = loaded.task.model_copy(update={"options": options})
    start = time.perf_counter()
    ef.export_bundle(network, folder / "bundle", preprocess=loaded.preprocess, task=task)
    rows = [("export to a bundle, simplified and compared", f"{time.perf_counter() - start:.1f} s")]
    if installed("tensorrt_rtx"):
        [graph] = (folder / "bundle/onnx").glob("*.onnx")
        start = time.perf_counter()
        engine = ef.build_engine(graph, folder / "net.engine", target="rtx:sm86", precision="fp16")
        took = time.perf_counter() - start
        rows.append(("engine for SM86, FP16", f"{engine.stat().st_size / 1e6:.1f} MB, built in {took:.1f} s"))
    return [*rows, *compared(folder, program)] if program else rows


def compared(folder: Path, program: str) -> list[tuple[str, str]]:
    """Boxes of both runtimes on the same pixels, resized once."""
    rows, paths = [], []
    with ef.Predictor(folder / "bundle", backend="onnxruntime") as predictor:
        for source in sorted(Path(ASSETS).glob("*.jpg")):
            paths.append(folder / f"{source.stem}.npy")
            np.save(paths[-1], _square(read_image(source)))
        answers = [predictor.predict(np.load(path)) for path in paths]
    command = [program, str(folder / "bundle"), *map(str, paths), "--json", "-"]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for path, answer in zip(paths, answers, strict=True):
        objects = theirs[str(path)]["objects"]
        same = [each["class"] for each in objects] == answer.classes.tolist()
        pixels = np.abs(np.array([each["box"] for each in objects]) - answer.boxes).max() if same else np.nan
        scores = np.abs(np.array([each["score"] for each in objects]) - answer.scores).max() if same else np.nan
        words = f"{len(answer)} in both, classes and order {'the same' if same else 'DIFFER'}"
        rows.append((f"boxes on {path.stem}", f"{words}; at most {pixels:.1e} pixels and {scores:.1e} of score apart"))
    return rows


def _square(pixels: np.ndarray) -> np.ndarray:
    """The middle at the network's own size: the two runtimes resize with a grey level of difference otherwise."""
    height, width = pixels.shape[:2]
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    return np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
