"""Twenty networks over all tasks, from torch to engines: how far each step moves the answer, how many nodes are left.

Usage: python benchmarks/round_trip.py [NAME ...] [--rows FILE] [--any-code]

With --rows, finished rows are kept in FILE, and an interrupted run goes on behind them; rows that another state of the
code made are made again, unless --any-code says that they do. All networks take half an hour on two cores.

Needs, beside eightfold, packages with photographs: see shipped_models.py.

Per network: export and simplify (nodes against onnxsim and onnxslim on the same export, relative error against torch),
the float16 graph (cosine against float32, every float16 tensor rounded, and how many nodes had to stay in float32),
INT8, engines for SM86 in both, and whether a second run gives the same bytes. Every other photograph calibrates, the
rest are compared. Weights are random at first, which no network in use has: one that never learned amplifies the
rounding of float32 (FCN-ResNet50: torch itself is 1.1e-4 from its answer in float64). So zero parameters are filled,
batch norms are fitted to the calibration photographs, and each network learns for a few steps to tell these apart.
"""

from __future__ import annotations

import argparse
import copy
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from kept_rows import KeptRows
from numpy.typing import NDArray
from peer_nodes import peer_nodes
from shipped_models import photographs
from step_checks import verify_module, verify_onnx

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError
from eightfold.export.fp16.fp16 import checked_fp16
from eightfold.export.fp16.fp16_emulation import verify_fp16
from eightfold.export.int8.quantize import quantize
from eightfold.export.simplify.simplify import simplify_onnx
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.module_runs import output_tensors
from eightfold.export.verify.verify import (
    Tolerance,
    compare_in_order,
    run_module_arrays,
    run_onnx,
)
from eightfold.files import sha256_of_file
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx
from eightfold.zoo.short_list import SHORT_LIST

RESULT = Path(__file__).parent / "results" / "round_trip.md"
TARGET = "rtx:sm86"
STEPS, STEP_IMAGES, LEARNING_RATE = 10, 4, 0.05


@dataclass(frozen=True)
class Row:
    """One network. `seconds` is simplification with its check. `rel_error` is against torch in float32, the next column
    against torch in float64. `float32_nodes` are those of the float16 graph that were kept for range or precision.
    Errors and cosines are the worst over the held-out photographs; engines are in MB."""

    network: str
    exporter_nodes: int
    onnxsim: str
    onnxslim: str
    ours: int
    seconds: float
    rel_error: float
    rel_error_to_float64: float
    half_cosine: float
    float32_nodes: int
    int8_cosine: float
    fp16_engine: str
    int8_engine: str
    stable: str

    @property
    def best_peer(self) -> int:
        counts = [int(count) for count in (self.onnxsim, self.onnxslim) if count.isdigit()]
        return min(counts or [self.exporter_nodes])


# What is asked of every network.
BARS: dict[str, Callable[[Row], bool]] = {
    "relative error to torch in float32 at most 1e-4": lambda row: row.rel_error <= 1e-4,
    "relative error to torch in float64 at most 1e-4": lambda row: row.rel_error_to_float64 <= 1e-4,
    "cosine of FP16 at least 0.9999": lambda row: row.half_cosine >= 0.9999,
    "FP16 engine built, no node refused": lambda row: not row.fp16_engine.startswith("refused"),
    "INT8 engine built, no node refused": lambda row: not row.int8_engine.startswith("refused"),
    "the same digests in two runs": lambda row: row.stable == "yes",
    "no more nodes than the better one of onnxsim and onnxslim": lambda row: row.ours <= row.best_peer,
}


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


def settle(network: torch.nn.Module, photographs: NDArray[np.float32]) -> torch.nn.Module:
    """Fill what is zero, learn a little, and fit batch norms to photographs."""
    generator = torch.Generator().manual_seed(1)
    images = torch.from_numpy(photographs)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout) or type(module).__name__ in ("StochasticDepth", "DropPath"):
            module.eval()
    learn(network, images, generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(images)
    return network.eval()


def learn(network: torch.nn.Module, images: torch.Tensor, generator: torch.Generator) -> None:
    """Some steps towards telling photographs apart: at each place of each output, a photograph's number is the channel
    to be the largest."""
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, momentum=0.9)
    for _ in range(STEPS):
        chosen = torch.randperm(len(images), generator=generator)[:STEP_IMAGES]
        outputs = [tensor for _, tensor in output_tensors(network(images[chosen])) if tensor.dim() > 1]
        loss = sum((own_channel(tensor, chosen) for tensor in outputs), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.requires_grad_(False)


def own_channel(output: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (images, channels, ...) with the number of each image everywhere."""
    labels = (numbers % output.shape[1]).reshape(-1, *[1] * (output.dim() - 2))
    return torch.nn.functional.cross_entropy(output, labels.expand(len(output), *output.shape[2:]))


def photographs_at(size: int) -> NDArray[np.float32]:
    images, preprocess = photographs(), Preprocess(height=size, width=size)
    return np.stack([preprocess(image) for image in images])


def error_to_double(network: torch.nn.Module, path: Path, images: NDArray[np.float32]) -> float:
    """Of the file against torch in float64: what is its own, where torch in float32 is as far off as it is."""
    exact = run_module_arrays(copy.deepcopy(network).double(), images.astype(np.float64))
    return max(item.max_rel_error for item in compare_in_order(exact, run_onnx(path, {"images": images})))


def engine_size(path: Path, precision: EnginePrecision, folder: Path, images: NDArray[np.float32]) -> str:
    output, inputs = folder / f"{precision}.engine", {"images": images[:2]}
    try:
        engine = build_engine(path, output, target=TARGET, precision=precision, inputs=inputs)
    except EightfoldError as error:
        return f"refused: {str(error)[:80]}"
    return f"{engine.stat().st_size / 1e6:.1f}"


@dataclass(frozen=True)
class Graphs:
    raw: Path
    small: Path
    half: Path
    int8: Path
    seconds: float
    float32_nodes: int

    @property
    def digests(self) -> list[str]:
        return [sha256_of_file(path) for path in (self.raw, self.small, self.half, self.int8)]


def graphs(network: torch.nn.Module, size: int, images: NDArray[np.float32], folder: Path) -> Graphs:
    raw = export_onnx(network, folder / "raw.onnx", batch=1, image_size=size)
    simplified = simplify_onnx(raw, folder / "small.onnx")
    half, (step,), _ = checked_fp16(simplified.path, inputs={"images": images[:6]})
    save_onnx(half, folder / "half.onnx")
    ranges = calibrate(simplified.path, iter(images), None, method="minmax", batch=1)
    quantize(simplified.path, ranges, folder / "int8.onnx", target=TARGET)
    kept = sum(int(found) for note in step.notes for found in re.findall(r", (\d+) of \d+ nodes", note))
    seconds = simplified.step.seconds or 0.0
    return Graphs(raw, simplified.path, folder / "half.onnx", folder / "int8.onnx", seconds, kept)


def measure(name: str, size: int) -> Row:
    images = photographs_at(size)
    fitted, held_out = images[0::2], images[1::2][:4]
    network = settle(build(name), fitted)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        folder = Path(first)
        made = graphs(network, size, fitted, folder)
        again = graphs(copy.deepcopy(network), size, fitted, Path(second))
        feeds = [{"images": image[None]} for image in held_out]
        half = verify_fp16(load_onnx(made.small), load_onnx(made.half), {"held-out": feeds}, tolerance=Tolerance())
        exact = [verify_module(network, made.small, feed["images"], tolerance=Tolerance()) for feed in feeds]
        int8 = [verify_onnx(made.small, made.int8, feed, step="int8", tolerance=Tolerance()) for feed in feeds]
        return Row(
            network=name,
            exporter_nodes=len(load_onnx(made.raw).graph.node),
            onnxsim=peer_nodes("onnxsim", made.raw, folder),
            onnxslim=peer_nodes("onnxslim", made.raw, folder),
            ours=len(load_onnx(made.small).graph.node),
            seconds=made.seconds,
            rel_error=max(step.max_rel_error or 0.0 for step in exact),
            rel_error_to_float64=max(error_to_double(network, made.small, feed["images"]) for feed in feeds),
            half_cosine=half.cosine or 0.0,
            float32_nodes=made.float32_nodes,
            int8_cosine=min(step.cosine or 0.0 for step in int8),
            fp16_engine=engine_size(made.small, "fp16", folder, fitted),
            int8_engine=engine_size(made.int8, "int8", folder, fitted),
            stable="yes" if made.digests == again.digests else "no",
        )


def table(rows: list[Row]) -> Iterator[str]:
    names = [field.name for field in fields(Row)]
    yield "| " + " | ".join(names) + " |"
    yield "|---" * len(names) + "|"
    for row in rows:
        cells = [getattr(row, name) for name in names]
        yield "| " + " | ".join(f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def bars(rows: list[Row]) -> Iterator[str]:
    for bar, holds in BARS.items():
        others = [row.network for row in rows if not holds(row)]
        text = f"- {bar}: {len(rows) - len(others)} of {len(rows)}"
        yield f"{text}, but {', '.join(others)}" if others else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(SHORT_LIST))
    parser.add_argument("--rows", type=Path, help="finished rows are kept there, and not made again")
    parser.add_argument("--any-code", action="store_true", help="also rows that another state of the code made")
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(chosen.rows, any_code=chosen.any_code)
    failures = []
    for name in chosen.names:
        try:
            if name not in kept.rows:
                kept.add(name, asdict(measure(name, SHORT_LIST[name])))
                print(list(table([Row(**kept.rows[name])]))[-1], flush=True)
        except (EightfoldError, RuntimeError, ValueError) as error:
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            print(failures[-1], flush=True)
        write(chosen.output, [Row(**kept.rows[name]) for name in SHORT_LIST if name in kept.rows], failures)


def write(path: Path, rows: list[Row], failures: list[str]) -> None:
    machine = f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    about = " ".join((Row.__doc__ or "").split())
    lines = ["# Round trip", "", machine, "", *bars(rows), "", about, "", *table(rows), "", *failures]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
