"""Label-free recovery: agreement or accuracy after least squares and after training, by widths, keep ratio and method.

    python benchmarks/recovery.py detector --keep 0.75 --method lsq recover last
    python benchmarks/recovery.py fashion --keep 0.5 --cpu-minutes 5 --method lsq recover last labels

Methods: `lsq` trains nothing; `recover` is `eightfold recover`; `last` mimics the last feature alone (MiR, CVPR 2022);
`labels` fine-tunes on all labelled training images. All start from the same least-squares solution and take the same
processor time, checks included, so that rows compare on a machine with other work. Plans, fits and states of training
lie in --work: a killed run goes on when it is called again. Rows are kept in benchmarks/results/recovery.json, and
written as a table to benchmarks/results/recovery.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from recovery_cases import CASES, Case
from torch import nn

import eightfold as ef
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.train.averaging import restore, snapshot
from eightfold.compress.train.checkpoint import Checkpoint
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.recover.options import RecoverOptions
from eightfold.files import write_text

RESULTS = Path(__file__).parent / "results"
METHODS = ("lsq", "recover", "last", "labels")
LABEL_RATE = 1e-3  # of AdamW
Row = dict[str, Any]


def rows_of(options: argparse.Namespace) -> list[Row]:
    """One row for each method; methods share the plan and the fit."""
    case = CASES[options.network](options.seed, options.work)
    start = _fitted(case, options)
    rows = []
    for method in options.method:
        model = copy.deepcopy(start["model"])
        row: Row = {
            name: getattr(options, name) for name in ("network", "keep", "max_macs", "rule", "score", "seed")
        } | {"method": method}
        began = time.process_time()
        done = _trained(model, case, start["plan"], method, options)
        row["cpu_minutes"] = options.cpu_minutes if method != "lsq" else 0
        row |= {"macs": start["macs"], "plan_cpu_s": start["plan_cpu_s"], "fit_cpu_s": start["fit_cpu_s"]}
        row |= done | {"training_cpu_s": round(time.process_time() - began), "machine": _machine()}
        rows.append(row | case.measure(model))
        print(json.dumps(rows[-1]), flush=True)
        keep_rows(rows[-1:])
    return rows


def _fitted(case: Case, options: argparse.Namespace) -> Row:
    """The network after pruning and least squares, with its plan; read back where it was made before."""
    stem = options.work / _name(options)
    plan_file, fit_file = stem.with_name(f"{stem.name}.plan.json"), stem.with_name(f"{stem.name}.fit")
    pruned = copy.deepcopy(case.original)
    began = time.process_time()
    if not plan_file.is_file():
        plan = ef.plan_pruning(
            case.original,
            case.images[:1],
            rule=options.rule,
            score=options.score,
            keep_ratio=options.keep,
            max_macs=options.max_macs,
            images=case.images[:64],
            seed=options.seed,
        )
        plan.save(plan_file)
        write_text(plan_file.with_suffix(".s"), str(round(time.process_time() - began)))
    plan = PrunePlan.load(plan_file)
    ef.apply_plan(pruned, plan)
    if fit_file.is_file():
        stored = Checkpoint.load(fit_file)
        restore(pruned, stored.parts["model"])
        seconds = stored.facts["seconds"]
    else:
        began = time.process_time()
        ef.compensate(pruned, case.original, plan, case.images)
        seconds = round(time.process_time() - began)
        Checkpoint({"model": snapshot(pruned)}, {"seconds": seconds}).save(fit_file)
    macs = ef.count_macs(pruned, case.images[:1]) / ef.count_macs(case.original, case.images[:1])
    plan_seconds = int(plan_file.with_suffix(".s").read_text())
    return {"model": pruned, "plan": plan, "macs": macs, "plan_cpu_s": plan_seconds, "fit_cpu_s": seconds}


def _trained(model: nn.Module, case: Case, plan: PrunePlan, method: str, options: argparse.Namespace) -> Row:
    """Train `model` in place by a method."""
    if method == "lsq":
        return {"steps": 0}
    if method == "labels":
        return _fine_tuned(model, case, options)
    recovery = RecoverOptions(
        batch=case.batch, augment=case.augment, rate=options.rate, least_squares=False, patience=20, clock="cpu"
    )
    if method == "last":
        recovery = replace(recovery, points=case.last, output_weight=0.0)
    done = ef.recover(
        model,
        case.original,
        case.source,
        plan=plan,
        minutes=options.cpu_minutes,
        preprocess=case.preprocess,
        options=recovery,
        checkpoint=_state(options, method),
        seed=options.seed,
    )
    return {"steps": done.steps, "outputs_before": done.started, "outputs_after": done.after, "stopped": done.stopped}


def _fine_tuned(model: nn.Module, case: Case, options: argparse.Namespace) -> Row:
    assert case.labelled is not None, f"{options.network} comes without labels"
    loop = LoopOptions(seconds=60 * options.cpu_minutes, clock="cpu", average=0.99, seed=options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LABEL_RATE, weight_decay=1e-4)
    state = _state(options, "labels")
    done = fit(model, case.labelled, optimizer, loop, loss=case.loss, checkpoint=state)
    state.unlink(missing_ok=True)
    return {"steps": done.steps}


def _state(options: argparse.Namespace, method: str) -> Path:
    return Path(options.work / f"{_name(options)}-{method}-{options.cpu_minutes:g}.safetensors")


def _name(options: argparse.Namespace) -> str:
    budget = "" if options.max_macs is None else f"-{options.max_macs:g}"
    return f"{options.network}-{options.keep:g}-{options.rule}-{options.score}-{options.seed}{budget}"


def _machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} thread(s)"


KEY = ("network", "keep", "max_macs", "rule", "score", "method", "seed", "cpu_minutes")


def keep_rows(rows: list[Row]) -> None:
    """Replace rows of the same settings, and write the table."""
    file = RESULTS / "recovery.json"
    kept: list[Row] = json.loads(file.read_text()) if file.is_file() else []
    keys = [[row.get(name) for name in KEY] for row in rows]
    kept = [row for row in kept if [row.get(name) for name in KEY] not in keys] + rows
    kept.sort(key=lambda row: [str(row.get(name)) for name in KEY])
    write_text(file, json.dumps(kept, indent=1) + "\n")
    write_text(RESULTS / "recovery.md", table(kept))


def table(rows: list[Row]) -> str:
    """Markdown."""
    columns = (
        "network",
        "keep",
        "rule",
        "method",
        "seed",
        "macs",
        "steps",
        "training_cpu_s",
        "plan_cpu_s",
        "fit_cpu_s",
    )
    columns = (*columns, "agreement", "boxes alone", "top1", "outputs_before", "outputs_after")
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(_cell(row.get(name)) for name in columns)} |" for row in rows]
    return (
        "# Recovery without labels\n\nMade by `benchmarks/recovery.py`, which says what the columns are.\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure the rows of one network, keep ratio and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=tuple(CASES))
    parser.add_argument("--keep", type=float, default=0.75)
    parser.add_argument("--max-macs", type=float, help="share, instead of that of the uniform plan")
    parser.add_argument("--rule", default="measured")
    parser.add_argument("--score", default="l2")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=["lsq", "recover"])
    parser.add_argument("--cpu-minutes", type=float, default=20.0, help="processor time of each training")
    parser.add_argument("--rate", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=RESULTS / ".recovery")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows_of(options)


if __name__ == "__main__":
    main()
