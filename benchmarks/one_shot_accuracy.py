"""Top-1 after pruning without any training: score x compensation, hidden widths only and every group.

Usage: python benchmarks/one_shot_accuracy.py [--networks mobilenet_v2 ...] [--scores l2 ...]

Each network is trained on 4,000 digits (`digit_networks.py`); compensation sees 256 of those images and no labels;
top-1 is of the 1,000 other digits. A hidden width is a group that one mixing layer makes and one reads; "every group"
adds residual streams, concatenated maps and the stem.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from digit_networks import NETWORKS, Digits, load_digits, top1_percent, trained
from torch import nn

import eightfold as ef
from eightfold.compress.compensate import METHODS

HERE = Path(__file__).parent
RATIOS = (0.75, 0.5, 0.35)
SCORES = ("l2", "bn_scale", "group_l2", "taylor", "lsq", "random")
IMAGES = 256
LABELLED = 64  # of the images, for scores that need a loss
BARS = {"hidden": 2.0, "every": 6.0}  # points below dense that least squares may lose at 0.5


@dataclass(frozen=True)
class Cell:
    network: str
    dense: float
    scope: str
    ratio: float
    score: str
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


def measure(network: str, model: nn.Module, digits: Digits, scores: Sequence[str]) -> Iterator[Cell]:
    images = digits.train_images[:IMAGES]
    graph = ef.trace(model, images[:1])
    dense = top1_percent(model, digits)
    for scope in BARS:
        for score in scores:
            labelled = score in ("taylor", "hessian_diag")
            for ratio in RATIOS:
                plan = ef.plan_pruning(
                    model,
                    images[:1],
                    score=score,
                    keep_ratio=ratio,
                    ignore=hidden_only(graph) if scope == "hidden" else (),
                    images=images[:LABELLED] if labelled else images,
                    targets=digits.train_labels[:LABELLED] if labelled else (),
                    loss=F.cross_entropy,
                    graph=graph,
                )
                top1, seconds = compensated(model, plan, images, digits, graph)
                cell = Cell(network, dense, scope, ratio, score, top1, seconds)
                print(row(cell), flush=True)
                yield cell


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
    return f"| {cell.network} | {cell.scope} | {cell.score} | {cell.ratio} | {points} | {cell.lsq_seconds:.0f} |"


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """For each network and scope at 0.5, how far least squares is below dense, by score."""
    lines = []
    for network in dict.fromkeys(cell.network for cell in cells):
        for scope, allowed in BARS.items():
            mine = [c for c in cells if (c.network, c.scope, c.ratio) == (network, scope, 0.5) and c.score != "random"]
            drops = {cell.score: cell.dense - cell.top1["lsq"] for cell in mine}
            told = ", ".join(f"{score} {drop:.1f}" for score, drop in drops.items())
            word = "holds" if max(drops.values()) <= allowed else "holds not for every score"
            lines.append(f"- {network}, {scope}, keep 0.5: points below dense: {told}; bar {allowed:g}: {word}.")
    return lines


def report(cells: Sequence[Cell]) -> str:
    from eightfold.runtime.devices import describe_device

    dense = {cell.network: cell.dense for cell in cells}
    told = ", ".join(f"{name} {top1:.1f}%" for name, top1 in dense.items())
    head = [
        "# One-shot accuracy: pruned, not trained",
        "",
        f"Top-1 (%) on 1,000 MNIST digits at 64x64; dense: {told}. {IMAGES} unlabelled images for compensation;",
        f"`taylor` sees {LABELLED} labels. Written by `benchmarks/one_shot_accuracy.py`. Seconds: lsq, one thread.",
        "",
        "| network | scope | score | keep | " + " | ".join(METHODS) + " | lsq s |",
        "|---|---|---|---|" + "---|" * len(METHODS) + "---|",
    ]
    machine = ["", "```", describe_device().describe(), "```", ""]
    return "\n".join([*head, *map(row, cells), "", *verdicts(cells), *machine])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--scores", nargs="+", default=list(SCORES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    cells = [
        cell
        for network in options.networks
        for cell in measure(network, trained(network, digits), digits, options.scores)
    ]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "one_shot_accuracy.md").write_text(report(cells))


if __name__ == "__main__":
    main()
