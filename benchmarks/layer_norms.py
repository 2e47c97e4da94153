"""Top-1 of networks with layer norms at budgets of MACs, with and without the channels below the norms; not trained.

Usage: python benchmarks/layer_norms.py [--networks convnext vit ...] [--rows FILE]
Finished rows are kept in build/, and an interrupted run goes on behind them.

The networks are trained on Fashion-MNIST (`fashion_networks.py`). Widths are those of the rule "measured", where it
reaches the budget, else of "uniform" with the score "lsq"; 256 training images without labels serve both and the
compensation. *layers only* is least squares that leaves the norms as they are.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from fashion_networks import NETWORKS, Fashion, load_fashion, top1_percent, trained
from kept_rows import SOURCE, KeptRows
from torch import nn

import eightfold as ef
from eightfold.compress.plan.costs import macs_cost
from eightfold.compress.trace.trace import trace
from eightfold.errors import UsageError

HERE = Path(__file__).parent
RESULT = HERE / "results" / "layer_norms.md"
BUDGETS = (0.75, 0.5, 0.35, 0.25, 0.15)
IMAGES = 256
COLUMNS = ("none", "layers only", "lsq")


def measure(model: nn.Module, data: Fashion, budget: float, layer_norms: bool) -> dict[str, Any]:
    """Top-1 for each way to compensate, or why there is no plan."""
    images = data.train_images[:IMAGES]
    graph = trace(model, images[:1], layer_norms=layer_norms)
    options: dict[str, Any] = {"graph": graph, "max_macs": budget, "score": "lsq", "images": images}
    for rule in ("measured", "uniform"):
        try:
            plan = ef.plan_pruning(model, images[:1], rule=rule, **options)
            break
        except UsageError:
            continue
    else:
        return {"rule": "out of reach"}
    row: dict[str, Any] = {"rule": rule, "left": macs_cost(graph)(plan.kept) / macs_cost(graph)({})}
    for column in COLUMNS:
        pruned = copy.deepcopy(model)
        ef.apply_plan(pruned, plan)
        seen = replace(graph, norms=()) if column == "layers only" else graph
        method = "lsq" if column == "layers only" else column
        ef.compensate(pruned, model, plan, images, method=method, graph=seen)
        row[column] = top1_percent(pruned, data)
    return row


def table(rows: Mapping[str, Mapping[str, Any]], dense: Mapping[str, float]) -> str:
    told = ", ".join(f"{name} {top1:.1f}%" for name, top1 in dense.items())
    lines = [
        "# Channels below layer norms",
        "",
        f"Top-1 (%) on the 10,000 test images of Fashion-MNIST; dense: {told}.",
        f"Pruned to a share of the multiply-accumulates, compensated with {IMAGES} images without labels, not trained",
        "afterwards. *layer norms*: whether channels below them are pruned. *layers only*: least squares that leaves",
        "the norms as they are. Made by `python benchmarks/layer_norms.py`.",
        "",
        "| network | MACs | layer norms | rule | " + " | ".join(COLUMNS) + " |",
        "|---|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for key, row in rows.items():
        name, budget, kind = key.split()
        cells = [f"{row[column]:.1f}" if column in row else "" for column in COLUMNS]
        if kind == "kept" and "left" in row:
            cells[1] = ""  # the same as least squares
        lines.append(f"| {name} | {float(budget):.0%} | {kind} | {row['rule']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--any-code", action="store_true", help="take kept rows that other code gave, too")
    parser.add_argument("--rows", type=Path, default=HERE.parent / "build" / "layer_norms.jsonl")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data, kept, dense = (
        load_fashion(),
        KeptRows(asked.rows, any_code=asked.any_code, code_in=(SOURCE / "compress",)),
        {},
    )
    names = []
    for name in asked.networks:
        model = trained(name, data)
        dense[name] = top1_percent(model, data)
        for budget, layer_norms in product(BUDGETS, (False, True)):
            key = f"{name} {budget} {'pruned' if layer_norms else 'kept'}"
            names.append(key)
            if key not in kept.rows:
                kept.add(key, measure(model, data, budget, layer_norms))
                print(key, kept.rows[key], flush=True)
    RESULT.write_text(table({key: kept.rows[key] for key in names}, dense))


if __name__ == "__main__":
    main()
