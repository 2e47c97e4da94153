"""Solving times of the integer program: four networks, three budgets, prices of several imagined devices.

Usage: python benchmarks/latency_solves.py [NETWORK ...] [--devices N]

Prices are a roofline's at the points that `eightfold profile` measures, each changed by noise of 5%, in blocks of 8 and
of 16 channels: N devices of each. Weights are random, so that no group is worth much more than another, which is the
hardest case. The table goes to benchmarks/results/latency_solves.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import combined, layer_scores
from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.plan.latency.choices import choices_by_score
from eightfold.compress.plan.latency.prices import Prices
from eightfold.compress.plan.latency.program import solve_program
from eightfold.compress.plan.latency.widths import NetworkLayer, widest
from eightfold.compress.trace.trace import trace
from eightfold.runtime.bench.profile.grid import levels
from eightfold.runtime.bench.profile.roofline import Roofline
from eightfold.runtime.bench.profile.width_table import WidthTable
from eightfold.runtime.devices.devices import describe_device

RESULTS = Path(__file__).parent / "results" / "latency_solves.md"
NETWORKS = ("mobilenet_v2", "resnet50", "densenet121", "yolov8x")
BARS = {"mobilenet_v2": 10, "resnet50": 30, "densenet121": 60, "yolov8x": 60}
SHARES = (0.7, 0.5, 0.35)
BLOCKS = (8, 16)
NOISE = 0.05


def build(name: str) -> tuple[Any, Any]:
    """A network and its input."""
    import torch
    from torchvision import models

    torch.manual_seed(0)
    if name.startswith("yolo"):
        from ultralytics import YOLO

        return YOLO(f"{name}.yaml").model.eval(), torch.zeros(1, 3, 640, 640)
    return models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)


def device_prices(layers: tuple[NetworkLayer, ...], block: int, seed: int) -> Prices:
    """Tables as a profile has them."""
    random, roofline = np.random.default_rng(seed), Roofline(block=block)
    tables = {}
    for shape, (inputs, outputs) in widest(layers).items():
        grid = [(i, o) for i in (levels(inputs, block) if shape.two_sided else (1,)) for o in levels(outputs, block)]
        times = roofline.times([(shape, i, o) for i, o in grid]) * np.exp(NOISE * random.standard_normal(len(grid)))
        tables[shape] = WidthTable.of_points(shape, dict(zip(grid, times.tolist(), strict=True)), (block, block))
    return Prices(layers, lambda shape, i, o: tables[shape].at(i, o))


def rows_of(name: str, devices: int) -> list[str]:
    """One row for each budget: the slowest of all devices."""
    model, inputs = build(name)
    graph = trace(model, inputs)
    layers = network_layers(model, inputs, graph)
    groups = [group for group in graph.free if group.prunable(8)]
    scores = combined(layer_scores(Evidence(model, graph), "l2"))
    found: dict[float, list[tuple[float, float, float, float]]] = {share: [] for share in SHARES}
    for block in BLOCKS:
        choices = choices_by_score(groups, scores, 8, block=block)
        for seed in range(devices):
            prices = device_prices(layers, block, seed)
            whole = prices.network_ms({})
            for share in SHARES:
                busy = time.process_time()
                plan = solve_program(choices, prices, share * whole)
                assert plan is not None
                busy = time.process_time() - busy
                found[share].append((busy, plan.seconds, plan.gap, prices.network_ms(plan.counts) / whole - share))
    rows = []
    for share, runs in found.items():
        cpu, wall, gap, over = np.array(runs).T
        rows.append(
            f"| {name} | {len(groups)} | {share:g}x | {len(runs)} | {np.median(cpu):.1f} | {cpu.max():.1f} | "
            f"{wall.max():.1f} | {gap.max():.2%} | {over.max():+.2%} | {BARS.get(name, 60)} |"
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--devices", type=int, default=3)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    head = (
        "| network | groups | budget | solves | median CPU s | worst CPU s | worst wall s | largest gap | over budget "
        "| bar, s |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    rows = [row for name in asked.networks for row in rows_of(name, asked.devices)]
    text = f"# Solving times of plans within a latency budget\n\n{describe_device().line()}; one thread.\n"
    text += "`python benchmarks/latency_solves.py` writes this table.\n\n" + "\n".join([head, *rows]) + "\n"
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
