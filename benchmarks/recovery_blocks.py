"""Blocks against channels at equal latency: accuracy after least squares, without training.

    python benchmarks/recovery_blocks.py --network fashion-small

The Fashion-MNIST network of `recovery_cases` loses its residual blocks by recoverability, one after the other. For each
count, channels are pruned by measured output error to the largest budget of multiply-accumulates at which the network
is no slower: onnxruntime, one thread, batch 1, candidates alternating, median of each. 500 unlabelled images serve
both. Writes benchmarks/results/recovery_blocks.md.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recovery_cases import CASES, Case
from torch import nn

import eightfold as ef
from eightfold.files import write_text

RESULTS = Path(__file__).parent / "results"
BUDGETS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
ROUNDS = 300


def pruned(case: Case, **options: Any) -> nn.Module:
    """After the plan and least squares."""
    model = copy.deepcopy(case.original)
    plan = ef.plan_pruning(case.original, case.images[:1], images=case.images[:256], **options)
    ef.apply_plan(model, plan)
    ef.compensate(model, case.original, plan, case.images)
    return model.eval()


def latencies(models: dict[str, nn.Module], shape: tuple[int, ...]) -> dict[str, float]:
    """Median milliseconds of each at batch 1; all take turns."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    image = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    times: dict[str, list[float]] = {name: [] for name in models}
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for place, (name, model) in enumerate(models.items()):
            file = Path(folder) / f"{place}.onnx"
            ef.export_onnx(model, file, batch=1, image_size=(shape[1], shape[2]), channels=shape[0])
            sessions[name] = ort.InferenceSession(str(file), options)
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                begun = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: image})
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: float(np.median(each)) for name, each in times.items()}


def main() -> None:
    """Measure all candidates in one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fashion")
    parser.add_argument("--work", type=Path, default=RESULTS / ".recovery")
    options = parser.parse_args()
    case = CASES[options.network](0, options.work)
    models: dict[str, nn.Module] = {"original": case.original}
    for count in (1, 2):
        whole = {"keep_ratio": 1.0, "remove_blocks": count, "block_score": "recoverability"}
        models[f"{count} block(s) removed"] = pruned(case, **whole)
    for budget in BUDGETS:
        models[f"channels, {budget:g} of MACs"] = pruned(case, rule="measured", max_macs=budget)
    ms = latencies(models, tuple(case.images.shape[1:]))
    macs = {name: ef.count_macs(model, case.images[:1]) for name, model in models.items()}
    lines = ["# Blocks against channels at equal latency", "", "| network | MACs | ms | top-1 |", "|---|---|---|---|"]
    for name, model in models.items():
        row = f"| {name} | {macs[name] / macs['original']:.3f} | {ms[name]:.3f} | {case.measure(model)['top1']:.4f} |"
        print(row, flush=True)
        lines.append(row)
    write_text(RESULTS / "recovery_blocks.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
