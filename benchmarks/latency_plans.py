"""Predicted against measured latency of plans, solving times, and plans within a budget beside uniform ones.

Usage: python benchmarks/latency_plans.py [NETWORK:TARGET:PRECISION ...] [--plans N] [--threads T] [--work FOLDER]

For each case the layers are profiled (or come from FOLDER), prices are fitted to five whole networks, and N random
plans that the fit has not seen are predicted and measured in the same alternating run. Then plans for 0.7, 0.5 and 0.35
of the latency are solved, the one for 0.5 is measured beside the whole network, and on MobileNetV2 a plan of 0.18 GMACs
beside the uniform plan of as many. Weights are random; scores are the L2 norms of the weights. With one thread (the
default) times are processor time, so that other work on the machine does not count. Rows are kept in FOLDER/rows.jsonl;
the table goes to benchmarks/results/latency_plans.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from kept_rows import KeptRows

from eightfold.runtime.devices.devices import describe_device

RESULTS = Path(__file__).parent / "results" / "latency_plans.md"
NETWORKS = ("mobilenet_v2", "resnet50", "yolov8n")
CASES = tuple(f"{n}:{t}:{p}" for t in ("cpu-x86", "openvino") for n in NETWORKS for p in ("int8", "fp32"))
SHARES = (0.7, 0.5, 0.35)
MACS = 0.18e9
HEAD = (
    "network", "target", "precision", "shapes", "profile s", "from cache s", "whole ms", "median error", "worst error",
    "0.5x measures", "solve s (0.7 / 0.5 / 0.35)", "largest gap",
)  # fmt: skip


def build(name: str) -> tuple[Any, Any]:
    """A network and its input."""
    import torch
    from torchvision import models

    torch.manual_seed(0)
    if name.startswith("yolo"):
        from ultralytics import YOLO

        return YOLO(f"{name}.yaml").model.eval(), torch.zeros(1, 3, 320, 320)
    return models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)


def case_row(case: str, plans: int, threads: int, work: Path) -> dict[str, Any]:
    from eightfold.compress.criteria.evidence import Evidence
    from eightfold.compress.criteria.scores import combined, layer_scores
    from eightfold.compress.latency.network_layers import network_layers
    from eightfold.compress.latency.whole_network import WholeNetwork, fitting_plans
    from eightfold.compress.plan.costs import macs_cost
    from eightfold.compress.plan.latency.choices import choices_by_score
    from eightfold.compress.plan.latency.prices import Prices
    from eightfold.compress.plan.latency.program import solve_program
    from eightfold.compress.plan.latency.widths import widest
    from eightfold.compress.trace.trace import trace
    from eightfold.runtime.bench.profile.profile_layers import profile_layers
    from eightfold.runtime.bench.profile.settings import settings_for
    from eightfold.runtime.bench.profile.store import ProfileStore

    name, target, precision = case.split(":")
    model, inputs = build(name)
    graph = trace(model, inputs)
    layers = network_layers(model, inputs, graph)
    settings = settings_for(target, precision, threads)
    path = work / f"{target}-{precision}-{threads}.jsonl"
    begin, busy = time.perf_counter(), time.process_time()
    profile = profile_layers(widest(layers), ProfileStore(settings, path))
    profile_s, profile_cpu_s, measured = time.perf_counter() - begin, time.process_time() - busy, profile.measured
    begin = time.perf_counter()
    profile = profile_layers(widest(layers), ProfileStore(settings, path))
    cached_s = time.perf_counter() - begin

    groups = [group for group in graph.free if group.prunable(8)]
    scores = combined(layer_scores(Evidence(model, graph), "l2"))
    choices = choices_by_score(groups, scores, 8, block=profile.multiple)
    network = WholeNetwork(model, inputs, graph, settings)
    sets = fitting_plans({choice.group: choice.counts for choice in choices})
    random = np.random.default_rng(7)
    for number in range(plans):
        floor = random.uniform(0, 0.7)
        sets[f"test {number}"] = {
            choice.group: int(random.choice([c for c in choice.counts if c >= floor * choice.counts[-1]]))
            for choice in choices
        }
    times = network.measure(sets)
    fitted = Prices(layers, profile.at).fitted([(sets[n], ms) for n, ms in times.items() if not n.startswith("test")])
    tests = [n for n in sets if n.startswith("test")]
    errors = [fitted.network_ms(sets[n]) / times[n] - 1 for n in tests]
    row: dict[str, Any] = {
        "network": name, "target": target, "precision": precision, "threads": threads, "shapes": len(profile.tables),
        "points": measured, "profile_s": profile_s, "profile_cpu_s": profile_cpu_s, "cached_s": cached_s,
        "steps": profile.steps, "whole_ms": times["whole"], "fit": vars(fitted.fit), "errors": errors,
        "times": times, "predicted": {n: fitted.network_ms(sets[n]) for n in sets},
    }  # fmt: skip
    whole = fitted.network_ms({})
    solutions = {share: solve_program(choices, fitted, share * times["whole"] * 0.985) for share in SHARES}
    row["solve_s"] = [s.seconds if s else None for s in solutions.values()]
    row["gaps"] = [s.gap if s else None for s in solutions.values()]
    beside: dict[str, Any] = {"whole": sets["whole"]}
    if solutions[0.5]:
        beside["half"] = solutions[0.5].counts
    cost = macs_cost(graph)

    def macs(counts: Any) -> float:
        return cost({group: np.arange(count) for group, count in counts.items()})

    if name == "mobilenet_v2":
        low, high, best = 0.2, 1.0, None
        for _ in range(7):  # the budget at which the plan has as many multiply-accumulates
            middle = (low + high) / 2
            found = solve_program(choices, fitted, middle * whole, seconds=6)
            if found is not None and macs(found.counts) >= MACS:
                high, best = middle, found
            else:
                low = middle
        ratio = max((r for r in np.arange(0.3, 1, 0.01)), key=lambda r: -abs(macs(uniform(groups, r)) - MACS))
        beside["uniform"] = uniform(groups, ratio)
        if best is not None:
            beside["at_macs"] = best.counts
        row["macs"] = {n: macs(beside[n]) for n in ("uniform", "at_macs") if n in beside}
    found_times = network.measure(beside)
    if "half" in found_times:  # as the rule does: a miss joins the fit, and the program is solved once more
        first = found_times["half"] / found_times["whole"]
        row["half_first"] = first
        if abs(first - 0.5) > 0.015:
            seen = [(sets[n], ms) for n, ms in times.items() if not n.startswith("test")]
            refitted = fitted.fitted([*seen, (beside["half"], first * times["whole"])])
            again = solve_program(choices, refitted, 0.5 * 0.985 * times["whole"])
            if again is not None:
                second = network.measure({"whole": sets["whole"], "half": again.counts})
                found_times = {**found_times, "half": second["half"] / second["whole"] * found_times["whole"]}
    row["beside"] = found_times
    row["half"] = found_times["half"] / found_times["whole"] if "half" in found_times else None
    return row


def uniform(groups: Any, ratio: float) -> dict[str, int]:
    """The same share of every group, to the nearest multiple of 8, as Torch-Pruning's round_to=8 has it."""
    return {g.id: min(g.width, max(g.step(8), round(g.width * ratio / g.step(8)) * g.step(8))) for g in groups}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for row in rows:
        errors = np.abs(row["errors"])
        cells = [
            row["network"], row["target"], row["precision"], row["shapes"], f"{row['profile_cpu_s']:.0f}",
            f"{row['cached_s']:.2f}", f"{row['whole_ms']:.2f}", f"{np.median(errors):.1%}", f"{errors.max():.1%}",
            "-" if row["half"] is None else f"{row['half']:.3f}",
            " / ".join("-" if s is None else f"{s:.1f}" for s in row["solve_s"]),
            f"{max((gap for gap in row['gaps'] if gap is not None), default=0):.2%}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for row in rows:
        if "macs" in row and "at_macs" in row["macs"]:
            plan, even = row["beside"]["at_macs"], row["beside"]["uniform"]
            lines += [
                "",
                f"MobileNetV2, {row['target']} {row['precision']}: whole {row['beside']['whole']:.2f} ms; uniform plan "
                f"of {row['macs']['uniform'] / 1e9:.3f} GMACs {even:.2f} ms; budgeted plan of "
                f"{row['macs']['at_macs'] / 1e9:.3f} GMACs {plan:.2f} ms: {even / plan:.2f} times as fast.",
            ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("latency-plans"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    kept = KeptRows(asked.work / "rows.jsonl", any_code=True)
    for case in asked.cases:
        key = f"{case}:{asked.threads}:{asked.plans}"
        if key not in kept.rows:
            kept.add(key, case_row(case, asked.plans, asked.threads, asked.work))
        rows = list(kept.rows.values())
        text = [
            "# Plans within a latency budget",
            "",
            f"{describe_device().line()}; threads: {asked.threads}; batch 1; profile: processor seconds.",
            "`python benchmarks/latency_plans.py` writes this table.",
            "",
            table(rows),
        ]
        RESULTS.write_text("\n".join(text) + "\n")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
