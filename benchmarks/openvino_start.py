"""What a kept compiled model saves at a start: seconds to open a graph in OpenVINO, compiled and brought back.

Usage: python benchmarks/openvino_start.py

Needs, beside eightfold, packages with photographs: see shipped_models.py.

Each opening has a process of its own, whose imports are done before the clock starts. The two kinds take turns; the
cache lies in a folder of its own. Weights are random: what is compiled does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from round_trip import build, photographs_at

from eightfold.calib.calibrate import calibrate
from eightfold.export.int8.quantize import quantize
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.openvino_cache import LARGEST_BYTES
from eightfold.versions import runtime_versions

RESULT = Path(__file__).parent / "results" / "openvino_start.md"
# name -> side of its images
NETWORKS: Mapping[str, int] = MappingProxyType(
    {"mobilenet_v2": 224, "resnet18": 224, "resnet50": 224, "ultralytics:yolov8n": 640}
)
TURNS = 5


def open_once(path: Path, *, keep: bool) -> float:
    """Seconds to open a graph and make it ready to run, with one thread."""
    import openvino  # noqa: F401  # not what is timed

    start = time.perf_counter()
    open_session(path, "openvino", SessionOptions(threads=1, keep_compiled=keep)).new_slot().run()
    return time.perf_counter() - start


def in_a_process(path: Path, cache: Path, *, keep: bool) -> float:
    command = [sys.executable, __file__, "--one", str(path), *(["--keep"] if keep else [])]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def graphs(name: str, side: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """(precision, file) of a network."""
    photographs = photographs_at(side)[:8]
    network = build(name).eval()
    plain, int8 = folder / "plain.onnx", folder / "int8.onnx"
    export_onnx(network, plain, batch=1, image_size=(side, side))
    simplify_onnx(plain)
    quantize(plain, calibrate(plain, photographs, None, batch=1), int8, target="openvino")
    yield from (("fp32", plain), ("int8", int8))


def row(name: str, precision: str, path: Path, cache: Path) -> str:
    seconds: dict[bool, list[float]] = {False: [], True: []}
    in_a_process(path, cache, keep=True)  # leaves the compiled model behind
    for _ in range(TURNS):
        for keep, found in seconds.items():
            found.append(in_a_process(path, cache, keep=keep))
    kept = next((file.stat().st_size for file in cache.rglob("*") if file.is_file()), 0)
    compiled, brought_back = (statistics.median(found) for found in seconds.values())
    cells = f"{path.stat().st_size / 1e6:.1f} | {kept / 1e6:.1f} | {compiled:.2f} | {brought_back:.2f}"
    return f"| {name} | {precision} | {cells} | {compiled / brought_back:.2f} |"


def rows() -> Iterator[str]:
    for name, side in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            for precision, path in graphs(name, side, Path(folder)):
                yield row(name, precision, path, Path(folder) / f"cache-{precision}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(open_once(chosen.one, keep=chosen.keep))
        return
    about = (
        f"Median of {TURNS} openings with the first run, one thread. `kept_mb` is the compiled model; 0 where the "
        f"weights are over {LARGEST_BYTES >> 20} MB and nothing is kept. A ratio above 1 is a quicker start."
    )
    machine = f"{platform.machine()}, OpenVINO {runtime_versions()['openvino']}"
    head = "| network | precision | graph_mb | kept_mb | compiled_s | brought_back_s | ratio |"
    lines = ["# Starting with OpenVINO", "", machine, "", about, "", head, "|---" * 7 + "|"]
    for line in rows():
        print(line, flush=True)
        lines.append(line)
    RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
