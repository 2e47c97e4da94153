"""Time and peak memory of least-squares compensation: ResNet-50 at 224x224 with 256 images, keep ratio 0.5.

Usage: python benchmarks/compensation_cost.py

Each scope runs in a process of its own; the images are random and made before the clock starts. Time and memory grow
with shapes alone, so random weights tell as much as trained ones. Peak memory is of the whole process. CPU seconds are
of all threads together: on a machine that others use, they tell more than the clock.
"""

from __future__ import annotations

import copy
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torchvision

import eightfold as ef

HERE = Path(__file__).parent
IMAGES, SIZE, THREADS = 256, 224, 2
SCOPES = ("hidden", "every")


def measure(scope: str) -> dict[str, float | str]:
    from one_shot_accuracy import hidden_only

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = torchvision.models.resnet50(weights=None).eval()
    images = torch.rand(IMAGES, 3, SIZE, SIZE)
    graph = ef.trace(model, images[:1])
    ignore = hidden_only(graph) if scope == "hidden" else ()
    plan = ef.plan_pruning(model, images[:1], keep_ratio=0.5, ignore=ignore, graph=graph)
    pruned = copy.deepcopy(model)
    ef.apply_plan(pruned, plan)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, start_cpu = time.perf_counter(), time.process_time()
    ef.compensate(pruned, model, plan, images, method="lsq", graph=graph)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"scope": scope, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb, "before_mb": before_mb}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    from eightfold.runtime.devices.devices import describe_device

    lines = [
        "# Least-squares compensation: time and memory",
        "",
        f"ResNet-50, {SIZE}x{SIZE}, {IMAGES} images, keep ratio 0.5, {THREADS} threads, written by",
        "`benchmarks/compensation_cost.py`. Bars: under 60 s, under 2000 MB.",
        "",
        "| pruned | s | CPU s | peak MB of the process | MB before compensation (model, images, copy) |",
        "|---|---|---|---|---|",
    ]
    for scope in SCOPES:
        done = subprocess.run([sys.executable, __file__, scope], check=True, stdout=subprocess.PIPE, text=True)
        cell = json.loads(done.stdout.splitlines()[-1])
        times = f"{cell['seconds']:.1f} | {cell['cpu_seconds']:.1f}"
        lines.append(f"| {scope} | {times} | {cell['peak_mb']:.0f} | {cell['before_mb']:.0f} |")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, "", "```", describe_device().describe(), "```", ""])
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "compensation_cost.md").write_text(text)


if __name__ == "__main__":
    main()
