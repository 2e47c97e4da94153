"""Time and memory of calibrating MobileNetV2 at 224x224: eightfold with 64 and 512 images, onnxruntime with 64.

Usage: python benchmarks/calibration_cost.py [--images 64 512]

Every cell runs in a process of its own, on the same stream of random images. Times are of calibration alone
(reading the model, running it, choosing thresholds); peak memory is of the whole process. onnxruntime keeps every
activation of every image for entropy, so it is asked for the smallest number of images only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SIZE = 224
OURS = ("percentile", "mse", "entropy")


@dataclass(frozen=True)
class Cell:
    """One measured run."""

    tool: str
    method: str
    images: int
    seconds: float
    peak_mb: float

    @property
    def ms_per_image(self) -> float:
        return self.seconds / self.images * 1e3


def images(count: int) -> Iterator[Any]:
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.random((3, SIZE, SIZE), dtype=np.float32)


def run_ours(model: Path, method: str, count: int) -> None:
    from eightfold.calib.calibrate import calibrate

    calibrate(model, images(count), None, method=method)  # type: ignore[arg-type]


def run_peer(model: Path, method: str, count: int) -> None:
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stream = images(count)

        def get_next(self) -> Any:
            image = next(self.stream, None)
            return None if image is None else {"images": image[None]}

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            model, calibrate_method=CalibrationMethod[method.capitalize()], augmented_model_path=f"{folder}/model.onnx"
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()


def measure_here(tool: str, model: Path, method: str, count: int) -> Cell:
    start = time.perf_counter()
    (run_ours if tool == "eightfold" else run_peer)(model, method, count)
    seconds = time.perf_counter() - start
    # Not ru_maxrss: that starts from what the parent process held when it forked.
    status = Path("/proc/self/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return Cell(tool, method, count, seconds, peak_mb)


def measure(tool: str, model: Path, method: str, count: int) -> Cell:
    words = [sys.executable, __file__, "--cell", tool, str(model), method, str(count)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    cell = Cell(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{tool} {method} {count}: {cell.seconds:.1f} s, {cell.peak_mb:.0f} MB", flush=True)
    return cell


def make_model(folder: Path) -> Path:
    import torchvision

    from eightfold.export.torch.onnx_export import export_onnx

    model = torchvision.models.mobilenet_v2(weights=None).eval()
    return export_onnx(model, folder / "mobilenet_v2.onnx", batch=1, image_size=SIZE)


def report(cells: list[Cell]) -> str:
    from eightfold.runtime.devices.devices import describe_device

    (peer,) = (cell for cell in cells if cell.tool == "onnxruntime" and cell.method == "entropy")
    small = {cell.method: cell for cell in cells if cell.tool == "eightfold" and cell.images == peer.images}
    lines = ["| tool | method | images | s | ms/image | peak MB | growth | time of onnxruntime's entropy |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for cell in cells:
        growth = f"{cell.peak_mb - small[cell.method].peak_mb:+.0f} MB" if cell.tool == "eightfold" else ""
        share = f"{cell.ms_per_image / peer.ms_per_image:.2f}"
        numbers = f"{cell.images} | {cell.seconds:.1f} | {cell.ms_per_image:.1f} | {cell.peak_mb:.0f}"
        lines.append(f"| {cell.tool} | {cell.method} | {numbers} | {growth} | {share} |")
    head = "# Calibration: time and memory\n\nMobileNetV2, 224x224, written by `benchmarks/calibration_cost.py`.\n"
    return "\n".join([head, *lines, "", "```", describe_device().describe(), "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs=2, default=(64, 512))
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        tool, model, method, count = options.cell
        print(json.dumps(asdict(measure_here(tool, Path(model), method, int(count)))))
        return
    few, many = options.images
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        cells = [measure("onnxruntime", model, "entropy", few)]
        cells += [measure("eightfold", model, method, count) for method in OURS for count in (few, many)]
    text = report(cells)
    print(text)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "calibration_cost.md").write_text(text)


if __name__ == "__main__":
    main()
