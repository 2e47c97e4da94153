"""Nodes left by eightfold, onnxsim and onnxslim on the exports of a long list of networks.

Usage: python benchmarks/node_counts.py [NAME ...] [--rows FILE] [--any-code]

NAME is one of `coverage_names.txt`, which are all taken by default. With --rows, finished rows are kept in FILE, and an
interrupted run goes on behind them; rows that another state of the code made are made again, unless --any-code says
that they do.

Each network has random weights and a small fixed size, is exported by eightfold's exporter, and given to each
simplifier as it comes out of it. A network has a process of its own with a time limit; the peers have their own, too.
What cannot be exported or simplified stands in the table with the reason.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from coverage_networks import build
from kept_rows import KeptRows
from peer_nodes import peer_nodes
from torch import nn

from eightfold.errors import EightfoldError
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.torch.onnx_export import exporter_of, onnx_from_module
from eightfold.onnx_graph.onnx_files import save_onnx

HERE = Path(__file__).parent
RESULT = HERE / "results" / "node_counts.md"
TIME_LIMIT_S = 900.0


@dataclass(frozen=True)
class Row:
    """One network. `remarks` name tools that failed or whose result was passed over, and why there is no number.
    `seconds` is what simplification with its check took, on a machine that may have had other work."""

    network: str
    exporter: str = ""
    nodes: int = 0
    onnxsim: str = ""
    onnxslim: str = ""
    ours: int = 0
    seconds: float = 0.0
    remarks: str = ""

    @property
    def best_peer(self) -> int:
        return min([int(count) for count in (self.onnxsim, self.onnxslim) if count.isdigit()] or [self.nodes])

    @property
    def verdict(self) -> str:
        if not self.nodes:
            return "not exported"
        if not self.ours:
            return "not simplified"
        less = self.best_peer - self.ours
        return f"{-less} more" if less < 0 else f"{less} fewer" if less else "as few"


class OneImage(nn.Module):
    """torchvision's detectors take a list of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(list(images))


def measure(name: str) -> Row:
    torch.manual_seed(0)
    model, example = build(name)
    if isinstance(example, tuple) and isinstance(example[0], list):
        model, example = OneImage(model), torch.stack(example[0])
    if isinstance(example, torch.Tensor) and example.shape[2:] == (64, 64):
        example = torch.rand(1, 3, 224, 224)  # some classifiers pool to a fixed grid, which wants more than one cell
    examples = example if isinstance(example, tuple) else (example,)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw.onnx"
        try:
            graph = onnx_from_module(model.eval(), *examples)
            save_onnx(graph, path)
        except EightfoldError as error:
            return Row(name, remarks=str(error)[:300])
        row = Row(name, exporter_of(graph), len(graph.graph.node))
        peers = {tool: peer_nodes(tool, path, Path(folder)) for tool in ("onnxsim", "onnxslim")}
        try:
            done = simplify_onnx(path, Path(folder) / "small.onnx")
        except EightfoldError as error:
            return Row(**{**asdict(row), **peers, "remarks": str(error)[:300]})
        words = ("passed over", "failed", "crashed", "stopped", "once more")
        notes = [note[:160] for note in done.step.notes if any(word in note for word in words)]
        made = {"ours": done.nodes_after, "seconds": done.step.seconds, "remarks": "; ".join(notes)}
        return Row(**{**asdict(row), **peers, **made})


def in_a_process(name: str) -> Row:
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        return Row(name, remarks=f"no answer in {TIME_LIMIT_S:.0f} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Row(name, remarks=last[:300])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: list[Row]) -> Iterator[str]:
    names = [field.name for field in fields(Row)]
    names.insert(6, "verdict")
    yield "| " + " | ".join(names) + " |"
    yield "|---" * len(names) + "|"
    for row in rows:
        cells = [getattr(row, name) for name in names]
        texts = [f"{cell:.1f}" if isinstance(cell, float) else str(cell).replace("|", "/") for cell in cells]
        yield "| " + " | ".join(texts) + " |"


def summary(rows: list[Row], old: int) -> str:
    done = [row for row in rows if row.ours]
    more = [row.network for row in done if row.ours > row.best_peer]
    fewer = sum(row.ours < row.best_peer for row in done)
    text = (
        f"{len(rows)} networks, {len(done)} of them exported and simplified. More nodes than the better one of onnxsim "
        f"and onnxslim: {len(more)}{' (' + ', '.join(more) + ')' if more else ''}; as many: "
        f"{len(done) - fewer - len(more)}; fewer: {fewer}."
    )
    return text + (f" {old} rows were made before the last change of the code." if old else "")


def write(path: Path, rows: list[Row], old: int) -> None:
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    about = " ".join((Row.__doc__ or "").split())
    lines = ["# Nodes after simplification", "", summary(rows, old), "", about, "", machine, "", *table(rows)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=(HERE / "coverage_names.txt").read_text().split())
    parser.add_argument("--rows", type=Path, help="finished rows are kept there, and not made again")
    parser.add_argument("--any-code", action="store_true", help="also rows that another state of the code made")
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.one:
        warnings.simplefilter("ignore")
        print(json.dumps(asdict(measure(chosen.one))))
        return
    kept = KeptRows(chosen.rows, any_code=chosen.any_code)
    for name in chosen.names:
        if name not in kept.rows:
            kept.add(name, asdict(in_a_process(name)))
            print(list(table([Row(**kept.rows[name])]))[-1], flush=True)
        order = {name: place for place, name in enumerate((HERE / "coverage_names.txt").read_text().split())}
        rows = [Row(**kept.rows[name]) for name in sorted(kept.rows, key=lambda name: order.get(name, len(order)))]
        write(chosen.output, rows, len(kept.old & kept.rows.keys()))


if __name__ == "__main__":
    main()
