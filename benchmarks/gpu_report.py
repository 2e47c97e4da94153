"""Report of the first minutes on a machine with an NVIDIA GPU: `make gpu-report`. One HTML file.

Usage: python benchmarks/gpu_report.py [--output build/gpu-report.html] [--seconds 450] [--seconds-per-row 2]

Runs the GPU tests. Builds FP32, FP16 and INT8 engines of three networks with each TensorRT that is installed, loads
them and compares their answers with the graphs they were built from. Measures torch, onnxruntime-CUDA and the engines
by batch in one alternating table per network. Needs no network connection. The file is written again after each part; a
part that fails is a row with its error, and parts that no longer fit into the time are named. Exit code 1 where
anything failed.
"""

from __future__ import annotations

import argparse
import html
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import eightfold as ef
from eightfold.errors import EightfoldError, first_line
from eightfold.export.simplify.simplify import simplify
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import run_onnx
from eightfold.files import write_text
from eightfold.runtime.backends import BACKENDS, open_session
from eightfold.runtime.backends.cuda_memory import cuda_absent, open_cuda
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.devices.devices import describe_device
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import load_source
from eightfold.zoo.torch_backend import CUDA_NAME, SUFFIX, write_torch_model

NETWORKS = ("mobilenet_v2", "resnet50", "lraspp_mobilenet_v3_large")
BATCHES = (1, 8)
PRECISIONS = ("fp32", "fp16", "int8")
# Smallest cosine between the answers of an engine and those of its graph.
CLOSE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.99}
TEST_SECONDS = 180
STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;margin:.5rem 0}td,th{border-bottom:1px solid #d5dae0;padding:.2rem .8rem;text-align:left}
pre{background:#f4f6f8;padding:.8rem;overflow-x:auto}.bad{color:#b3261e}.good{color:#1b6e3c}"""


@dataclass
class Report:
    """Sections of the page, kept on disk after each one."""

    path: Path
    sections: list[str] = field(default_factory=list)
    failures: int = 0

    def add(self, title: str, body: str) -> None:
        """A section with HTML inside."""
        self.sections.append(f"<h2>{html.escape(title)}</h2>\n{body}")
        page = "\n".join(self.sections)
        text = f"<title>eightfold on a GPU</title>\n<style>{STYLE}</style>\n<h1>eightfold on a GPU</h1>\n{page}\n"
        write_text(self.path, f'<!doctype html>\n<html lang="en"><meta charset="utf-8">\n{text}')
        print(f"{title}: {len(body)} characters", flush=True)

    def table(self, title: str, head: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> None:
        """A section with one table; each row comes with True where its check passed."""
        self.failures += sum(not passed for _, passed in rows)
        lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        for cells, passed in rows:
            shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            lines.append(f'<tr class="{"good" if passed else "bad"}">{shown}</tr>')
        self.add(title, "<table>" + "\n".join(lines) + "</table>")


@dataclass(frozen=True)
class Engines:
    """One TensorRT of this machine: the backend that runs its engines and the target that builds them."""

    backend: str
    target: str


def installed_engines() -> list[Engines]:
    """Each TensorRT that can build and run engines on this machine's GPU."""
    found = [Engines("tensorrt", "tensorrt")] if BACKENDS["tensorrt"].absent() is None else []
    if BACKENDS["tensorrt-rtx"].absent() is None:
        capability = open_cuda().compute_capability().replace(".", "")
        found.append(Engines("tensorrt-rtx", f"rtx:sm{capability}"))
    return found


def main() -> int:
    """Write the report; 1 where a test, an engine or a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/gpu-report.html"))
    parser.add_argument("--seconds", type=float, default=450.0, help="time for everything")
    parser.add_argument("--seconds-per-row", type=float, default=2.0)
    arguments = parser.parse_args()
    if reason := cuda_absent():
        print(f"no usable NVIDIA GPU: {reason}", file=sys.stderr)
        return 1
    deadline = time.monotonic() + arguments.seconds
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.output)
    add_machine(report)
    add_tests(report, timeout=min(TEST_SECONDS, arguments.seconds))
    rows = [name for name in (CUDA_NAME, "onnxruntime-cuda") if BACKENDS[name].absent() is None]
    add_networks(report, NETWORKS, installed_engines(), rows, BATCHES, arguments.seconds_per_row, deadline)
    print(f"{report.path}: {report.failures} failed")
    return 1 if report.failures else 0


def add_machine(report: Report) -> None:
    """The device, and why each backend can or cannot be used."""
    gpus = [gpu.describe() for gpu in describe_device().gpus]
    backends = [f"{name}: {backend.absent() or 'usable'}" for name, backend in BACKENDS.items()]
    text = "\n".join([f"eightfold {ef.__version__}", describe_device().line(), *gpus, "", *backends])
    report.add("Machine", f"<pre>{html.escape(text)}</pre>")


def add_tests(report: Report, *, timeout: float, selection: Sequence[str] = ("-m", "gpu")) -> None:
    """The GPU tests in a process of their own."""
    command = [sys.executable, "-m", "pytest", *selection, "-q", "-rfEs", "--no-header", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        output, passed = done.stdout + done.stderr, done.returncode == 0
    except subprocess.TimeoutExpired as error:
        raw = error.stdout or b""
        text = raw.decode(errors="replace") if isinstance(raw, bytes) else raw
        output, passed = f"{text}\nnot finished after {timeout:.0f} s", False
    summary = re.findall(r"^\d+ .*$", output, re.MULTILINE)[-1:] or ["no summary"]
    report.table("GPU tests", ("result",), [(summary, passed)])
    report.add("GPU tests: end of the output", f"<pre>{html.escape(output[-6000:])}</pre>")


def add_networks(
    report: Report,
    names: Sequence[str],
    engines: Sequence[Engines],
    backends: Sequence[str],
    batches: Sequence[int],
    seconds_per_row: float,
    deadline: float,
) -> None:
    """Engines, comparison and latency of each network, while there is time.

    Args:
        names: model sources; weights are random with a fixed seed where a source brings none.
        backends: further rows of the latency table beside the engines.
        deadline: of `time.monotonic()`.
    """
    for name in names:
        if time.monotonic() > deadline:
            report.table(name, ("result",), [(["not run: the time is over"], False)])
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                _add_network(report, name, engines, backends, batches, seconds_per_row, Path(folder))
            except EightfoldError as error:
                report.table(name, ("result",), [([first_line(error)], False)])


def _add_network(
    report: Report,
    name: str,
    engines: Sequence[Engines],
    backends: Sequence[str],
    batches: Sequence[int],
    seconds_per_row: float,
    folder: Path,
) -> None:
    loaded = load_source(name, SourceOptions())
    made: list[tuple[Candidate, Path]] = []
    rows: list[tuple[list[str], bool]] = []
    candidates: list[Candidate] = []
    for batch in batches:
        graph = folder / f"b{batch}.onnx"
        simplify(export_onnx(loaded.module, graph, batch=batch, image_size=loaded.size))
        candidates += _networks_rows(loaded, graph, batch, backends, folder)
        for each, precision in itertools.product(engines, PRECISIONS):
            cells, built = _built(each, precision, graph, batch, folder)
            if built is None:
                rows.append((cells, False))
            else:
                made.append(built)
    for candidate, graph in made:
        rows.append(_compared(candidate, graph))
    report.table(f"{name}: engines", ("engine", "batch", "cosine", "largest difference", "note"), rows)
    candidates += [candidate for candidate, _ in made]
    if not candidates:
        report.table(f"{name}: latency", ("result",), [(["no backend can run it here"], False)])
        return
    options = BenchOptions(Schedule(seconds=seconds_per_row), memory=False)
    table = compare_latency(candidates, options=options)
    report.add(f"{name}: latency", f"<pre>{html.escape(table.describe())}</pre>")
    table.save(report.path.with_name(f"{report.path.stem}-{loaded.name}.json"))


def _networks_rows(
    loaded: LoadedModel, graph: Path, batch: int, backends: Sequence[str], folder: Path
) -> Iterator[Candidate]:
    for backend in backends:
        path = graph
        if backend.startswith("torch"):
            path = write_torch_model(loaded, batch, None, folder / f"b{batch}{SUFFIX}")
        yield Candidate(backend, path, batch=batch, backend=backend)


def _built(
    engines: Engines, precision: str, graph: Path, batch: int, folder: Path
) -> tuple[list[str], tuple[Candidate, Path] | None]:
    """The engine with the graph that it has to agree with; or None and the cells of the row that says why not."""
    name = f"{engines.backend} {precision}"
    path, source = folder / f"{name}-b{batch}.engine", graph
    begin = time.perf_counter()
    try:
        if precision == "int8":
            source = graph.with_name(f"{graph.stem}.int8.onnx")
            ranges = ef.calibrate(graph, iter(_images(graph, 32)), None, method="minmax", batch=1)
            ef.quantize(graph, ranges, source, target="tensorrt")
        build_engine(source, path, target=engines.target, precision=precision)  # type: ignore[arg-type]
    except EightfoldError as error:
        return [name, str(batch), "-", "-", first_line(error)], None
    print(f"{name} b{batch}: built in {time.perf_counter() - begin:.1f} s", flush=True)
    return [], (Candidate(name, path, batch=batch, backend=engines.backend, precision=precision), source)  # type: ignore[arg-type]


def _compared(candidate: Candidate, graph: Path) -> tuple[list[str], bool]:
    """The engine's answers beside those of its graph on the CPU."""
    try:
        slot = open_session(candidate.path, candidate.backend).new_slot()
        ((name, buffer),) = slot.inputs.items()
        rows = np.concatenate(list(itertools.islice(_images(graph, len(buffer)), len(buffer))))
        slot.run_on({name: rows})
        expected = run_onnx(graph, {name: rows})
        cosines = [_cosine(slot.outputs[output], array) for output, array in expected.items()]
        differences = [float(np.abs(slot.outputs[output] - array).max()) for output, array in expected.items()]
    except EightfoldError as error:
        return [candidate.name, str(candidate.batch), "-", "-", first_line(error)], False
    cells = [candidate.name, str(candidate.batch), f"{min(cosines):.6f}", f"{max(differences):.3g}", ""]
    return cells, min(cosines) >= CLOSE[candidate.precision]


def _images(graph: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """Noise in the shape of one image of the graph's input, (1, C, H, W) float32; the same on every call."""
    (spec,) = open_session(graph, "onnxruntime").inputs
    generator = np.random.default_rng(0)
    for _ in range(count):
        yield generator.standard_normal((1, *spec.shape[1:])).astype(np.float32)


def _cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    first, second = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-30))


if __name__ == "__main__":
    sys.exit(main())
