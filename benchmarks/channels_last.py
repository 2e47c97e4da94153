"""A training step with channels last and with channels first, in processor time on one thread.

Usage: OMP_NUM_THREADS=1 python benchmarks/channels_last.py

Each network takes steps of the training loop in both layouts, in turn; the least time of a step counts, and the layout
that the loop takes by itself is shown beside. Weights are random.
The table goes to benchmarks/results/channels_last.md.
"""

from __future__ import annotations

import copy
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.train import memory_layout
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.export.verify.module_runs import output_tensors
from eightfold.runtime.devices.devices import describe_device
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

RESULT = Path(__file__).parent / "results/channels_last.md"
STEPS, TURNS = 3, 2
CASES = {
    "torchvision mobilenet_v2": ("mobilenet_v2", 16, 128),
    "torchvision efficientnet_b0": ("efficientnet_b0", 16, 128),
    "torchvision shufflenet_v2_x1_0": ("shufflenet_v2_x1_0", 16, 128),
    "torchvision resnet18": ("resnet18", 16, 128),
    "torchvision densenet121": ("densenet121", 8, 128),
    "timm convnext_atto": ("timm:convnext_atto", 8, 128),
    "Darknet yolov3-tiny": ("darknet:recipes/darknet/yolov3-tiny-3.cfg", 16, 160),
    "ultralytics yolov8n": ("ultralytics:yolov8n", 8, 160),
    "MODNet": ("modnet", 4, 128),
}


def step_seconds(model: nn.Module, images: Tensor, last: bool) -> float:
    """The least processor time of a step with channels last or first."""
    times: list[float] = []

    def loss(outputs: Any, _: Any) -> Tensor:
        times.append(time.process_time())
        return torch.stack([tensor.float().square().mean() for _, tensor in output_tensors(outputs)]).sum()

    trained = copy.deepcopy(model)
    kept = memory_layout.MemoryLayout.choose, memory_layout.WITHIN_IMAGES
    memory_layout.WITHIN_IMAGES = frozenset()
    if not last:
        memory_layout.MemoryLayout.choose = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        fit(
            trained,
            lambda _: Batch((images,)),
            torch.optim.SGD(trained.parameters(), lr=1e-9),
            LoopOptions(steps=STEPS + 1),
            loss=loss,
            devices=Devices("cpu", "off"),
        )
    finally:
        memory_layout.MemoryLayout.choose, memory_layout.WITHIN_IMAGES = kept  # type: ignore[method-assign]
    return min(after - before for before, after in pairwise(times))


def row(name: str) -> str:
    """One line of the table."""
    source, batch, side = CASES[name]
    model = load_source(source, SourceOptions(size=(side, side))).module
    images = torch.randn(batch, 3, side, side)
    times = [[step_seconds(model, images, last) for last in (False, True)] for _ in range(TURNS)]
    first, last = (min(pair[place] for pair in times) for place in (0, 1))
    layout = memory_layout.MemoryLayout()
    layout.choose(model, Batch((images,)), Devices("cpu", "off"), training=True)
    chosen = "last" if layout.channels_last else "first"
    return f"| {name} | {batch} x {side} | {first:.3f} | {last:.3f} | {first / last:.2f} | {chosen} |"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    head = "| network | images | channels first s | channels last s | times as fast | the loop takes |"
    rows = []
    for name in CASES:
        rows.append(row(name))
        print(rows[-1], flush=True)
    lines = ["# Training steps with channels last", "", f"{describe_device().line()}; one thread, processor seconds."]
    RESULT.write_text("\n".join([*lines, "", head, "|---" * 6 + "|", *rows]) + "\n")


if __name__ == "__main__":
    main()
