"""Top-1 after pruning without any training: score x compensation, hidden widths only and every group.

Usage: python benchmarks/one_shot_accuracy.py [--networks mobilenet_v2 ...] [--scores l2 ...] [--fresh]

Every cell is written down as soon as it is known; a run that was stopped goes on where it was, `--fresh` starts anew.

Each network is trained on 4,000 digits (`digit_networks.py`); compensation sees 256 of those images and no labels;
top-1 is of the 1,000 other digits. A hidden width is a group that one mixing layer makes and one reads; "every group"
adds residual streams, concatenated maps and the stem.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from digit_networks import CACHE, NETWORKS, Digits, load_digits, top1_percent, trained
from torch import nn

import eightfold as ef
from eightfold.compress.compensate.compensate import METHODS

HERE = Path(__file__).parent
RATIOS = (0.75, 0.5, 0.35)
SCORES = ("l2", "lsq", "bn_scale", "taylor", "group_l2", "random")
IMAGES = 256
LABELLED = 64  # of the images, for scores that need a loss
BARS = {"hidden": 2.0, "every": 6.0}  # points below dense that least squares may lose at 0.5


class Key(NamedTuple):
    network: str
    scope: str
    score: str
    ratio: float


@dataclass(frozen=True)
class Cell:
    key: Key
    dense: float
    top1: dict[str, float]
    lsq_seconds: float


def hidden_only(graph: ef.ChannelGraph) -> list[str]:
    """Ids of the groups to leave alone when only hidden widths are pruned."""
    depthwise = {layer.weight for layer in graph.layers if layer.depthwise}

    def mixing(group_id: str, role: str) -> int:
        members = (m for m in graph.group(group_id).members if m.role == role)
        return len({m.tensor for m in members if len(graph.shapes[m.tensor]) > 1} - depthwise)

    ids = [group.id for group in graph.free]
    return [name for name in ids if (mixing(name, "producer"), mixing(name, "consumer")) != (1, 1)]


def measure(key: Key, model: nn.Module, digits: Digits) -> Cell:
    images = digits.train_images[:IMAGES]
    graph = ef.trace(model, images[:1])
    labelled = key.score in ("taylor", "hessian_diag")
    plan = ef.plan_pruning(
        model,
        images[:1],
        score=key.score,
        keep_ratio=key.ratio,
        ignore=hidden_only(graph) if key.scope == "hidden" else (),
        images=images[:LABELLED] if labelled else images,
        targets=digits.train_labels[:LABELLED] if labelled else (),
        loss=F.cross_entropy,
        graph=graph,
    )
    top1, seconds = compensated(model, plan, images, digits, graph)
    return Cell(key, top1_percent(model, digits), top1, seconds)


def compensated(
    model: nn.Module, plan: ef.PrunePlan, images: torch.Tensor, digits: Digits, graph: ef.ChannelGraph
) -> tuple[dict[str, float], float]:
    """Top-1 by method, and the seconds that least squares took."""
    found: dict[str, float] = {}
    seconds = 0.0
    for method in METHODS:
        pruned = copy.deepcopy(model)
        ef.apply_plan(pruned, plan)
        start = time.perf_counter()
        ef.compensate(pruned, model, plan, images, method=method, graph=graph)
        seconds = time.perf_counter() - start
        found[method] = top1_percent(pruned, digits)
    return found, seconds


def row(cell: Cell) -> str:
    points = " | ".join(f"{cell.top1[method]:.1f}" for method in METHODS)
    return f"| {' | '.join(map(str, cell.key))} | {points} | {cell.lsq_seconds:.0f} |"


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """For each network and scope at 0.5, how far least squares is below dense, by score."""
    lines = []
    for network in dict.fromkeys(cell.key.network for cell in cells):
        for scope, allowed in BARS.items():
            mine = [cell for cell in cells if cell.key[:2] == (network, scope) and cell.key.ratio == 0.5]
            drops = {cell.key.score: cell.dense - cell.top1["lsq"] for cell in mine}
            told = ", ".join(f"{score} {drop:.1f}" for score, drop in drops.items()) or "not measured"
            lines.append(f"- {network}, {scope}, keep 0.5, least squares, points below dense: {told} (bar {allowed:g})")
    return lines


def report(cells: Sequence[Cell]) -> str:
    from eightfold.runtime.devices.devices import describe_device

    dense = {cell.key.network: cell.dense for cell in cells}
    told = ", ".join(f"{name} {top1:.1f}%" for name, top1 in dense.items())
    head = [
        "# One-shot accuracy: pruned, not trained",
        "",
        f"Top-1 (%) on 1,000 MNIST digits at 64x64; dense: {told}. {IMAGES} unlabelled images for compensation;",
        f"`taylor` sees {LABELLED} labels. Written by `benchmarks/one_shot_accuracy.py`. Seconds: lsq, one thread,",
        "on a machine that others use. Combinations that are not listed have not been measured yet.",
        "",
        "| network | scope | score | keep | " + " | ".join(METHODS) + " | lsq s |",
        "|---|---|---|---|" + "---|" * len(METHODS) + "---|",
    ]
    machine = ["", "```", describe_device().describe(), "```", ""]
    return "\n".join([*head, *map(row, cells), "", *verdicts(cells), *machine])


def known(path: Path) -> dict[Key, Cell]:
    if not path.exists():
        return {}
    cells = [json.loads(line) for line in path.read_text().splitlines()]
    return {Key(*cell["key"]): Cell(Key(*cell["key"]), cell["dense"], cell["top1"], cell["seconds"]) for cell in cells}


def remember(path: Path, cell: Cell) -> None:
    told = {"key": cell.key, "dense": cell.dense, "top1": cell.top1, "seconds": cell.lsq_seconds}
    with path.open("a") as stream:
        stream.write(json.dumps(told) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--scores", nargs="+", default=list(SCORES))
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    path = CACHE / "one_shot_accuracy.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    cells = known(path)
    for score, network, scope, ratio in product(options.scores, options.networks, BARS, RATIOS):
        key = Key(network, scope, score, ratio)
        if key not in cells:
            cells[key] = measure(key, trained(network, digits), digits)
            remember(path, cells[key])
            print(row(cells[key]), flush=True)
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "one_shot_accuracy.md").write_text(report(sorted(cells.values(), key=_order)))


def _order(cell: Cell) -> tuple[int, int, int, float]:
    key = cell.key
    return list(NETWORKS).index(key.network), list(BARS).index(key.scope), SCORES.index(key.score), -key.ratio


if __name__ == "__main__":
    main()
