"""How long it takes to prune, beside Torch-Pruning in the same run, and how the time grows with the network.

Usage: python benchmarks/prune_speed.py [--all] [--no-peer]
Needs `pip install torch-pruning` for the peer; --all takes every torchvision classification model that fits.

Each network runs in a process of its own, ours and the peer's in turn: random weights, 224x224, keep ratio 0.5,
multiple 8, L2 norms, one thread. Ours counts trace, groups, scores, selection, the check that the pruned network runs,
and surgery; the peer counts building its pruner and one step. Imports are not counted, and seconds are CPU seconds, so
that other work on the machine does not count either. The table goes to benchmarks/results/prune_speed.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 60  # CPU seconds for a process, imports included
RESULTS = Path(__file__).parent / "results" / "prune_speed.md"
SOME = (
    "alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "mnasnet1_0", "mobilenet_v2", "mobilenet_v3_large", "regnet_x_400mf", "resnet18", "resnet50", "resnext50_32x4d",
    "shufflenet_v2_x1_0", "squeezenet1_0", "vgg11",
)  # fmt: skip
BUDGET = " at half the MACs"  # behind a name: the plan fills a budget of multiply-accumulates
BUDGETS = (f"densenet201{BUDGET}", f"efficientnet_v2_l{BUDGET}", f"blocks:500{BUDGET}")
GROWTH = ("blocks:100", "blocks:200", "blocks:500", "dense:24", "dense:48", "dense:96")
DETECTORS = ("fasterrcnn_resnet50_fpn",)


@dataclass(frozen=True)
class Result:
    name: str
    seconds: float | None  # None when it failed
    note: str = ""
    peak_mb: float = 0.0


def build(name: str) -> tuple[Any, Any]:
    """A network and its input. blocks:N is a stack of N residual blocks, dense:N a DenseNet block of N layers."""
    import torch
    from torchvision import models

    name = name.removesuffix(BUDGET)
    kind, _, number = name.partition(":")
    image = torch.rand(1, 3, 224, 224)
    if kind == "blocks":
        return residual_stack(int(number)), torch.rand(1, 3, 32, 32)
    if kind == "dense":
        return models.DenseNet(16, (int(number),), 32, num_classes=10), torch.rand(1, 3, 32, 32)
    if hasattr(models.detection, name):
        model = getattr(models.detection, name)(weights=None, weights_backbone=None)
        return model, ([torch.rand(3, 320, 320)],)
    return models.get_model(name, weights=None), image


def residual_stack(blocks: int) -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = (nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1))
            self.body = nn.Sequential(*layers, nn.BatchNorm2d(32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.body(x))

    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Conv2d(3, 32, 3), *(Block() for _ in range(blocks)), *head)


def ours(name: str) -> dict[str, Any]:
    import scipy.sparse.csgraph  # noqa: F401  # imports are not counted
    import torch

    import eightfold as ef

    torch.set_num_threads(1)
    model, inputs = build(name)
    model.eval()
    ef.plan_pruning, ef.apply_plan  # noqa: B018  # as above
    start = time.process_time()
    plan = ef.plan_pruning(model, inputs, max_macs=0.5 if name.endswith(BUDGET) else None)
    ef.apply_plan(model, plan)
    seconds = time.process_time() - start
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def peer(name: str) -> dict[str, Any]:
    import torch
    import torch_pruning as tp
    from torch import nn

    torch.set_num_threads(1)
    model, inputs = build(name)
    model.eval()
    ignored = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features in (10, 1000)]
    start = time.process_time()
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    options = {"pruning_ratio": 0.5, "ignored_layers": ignored, "round_to": 8}
    tp.pruner.BasePruner(model, inputs, importance=importance, **options).step()
    seconds = time.process_time() - start
    with torch.no_grad():
        model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return {"seconds": seconds}


def in_child(which: str, name: str) -> Result:
    """Run `ours` or `peer` in a process of its own, for at most LIMIT_S."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", which, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=_limit)
    if done.returncode < 0:
        return Result(name, None, f"no answer in {LIMIT_S} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["killed"]
        return Result(name, None, lines[-1].partition(":")[0][:40])
    answer = json.loads(done.stdout.splitlines()[-1])
    return Result(name, answer["seconds"], peak_mb=answer.get("peak_mb", 0.0))


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))


def table(names: list[str], with_peer: bool) -> None:
    lines = ["| network | eightfold (s) | Torch-Pruning (s) | ratio | our peak memory (MB) |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    both: list[tuple[float, float]] = []
    for name in names:
        mine = in_child("ours", name)
        known_to_peer = ":" not in name and not name.endswith(BUDGET)
        theirs = in_child("peer", name) if with_peer and known_to_peer else Result(name, None, "not run")
        ratio = ""
        if mine.seconds is not None and theirs.seconds is not None:
            both.append((mine.seconds, theirs.seconds))
            ratio = f"{theirs.seconds / mine.seconds:.1f}"
        lines.append(f"| {name} | {_cell(mine)} | {_cell(theirs)} | {ratio} | {mine.peak_mb:.0f} |")
        print(lines[-1], flush=True)
        write("\n".join([*lines, *sums(both)]))
    print("\n".join(sums(both)))


def sums(both: list[tuple[float, float]]) -> list[str]:
    """The last row of the table, from the seconds of the networks that both finish."""
    if not both:
        return []
    ratios = sorted(b / a for a, b in both)
    a, b = (sum(column) for column in zip(*both, strict=True))
    told = f"{b / a:.1f} (median {ratios[len(ratios) // 2]:.1f}, least {ratios[0]:.1f})"
    return [f"| sum over the {len(both)} that both finish | {a:.2f} | {b:.2f} | {told} | |"]


def write(body: str) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, one thread, CPU seconds; other work ran on the machine meanwhile."
    RESULTS.write_text(f"# Time to prune\n\nMade by `python benchmarks/prune_speed.py`. {machine}\n\n{body}\n")


def _cell(result: Result) -> str:
    return f"{result.seconds:.2f}" if result.seconds is not None else result.note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every torchvision classification model")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("WHICH", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        which, name = options.child
        print(json.dumps({"ours": ours, "peer": peer}[which](name)))
        return
    from torchvision import models

    names = models.list_models(module=models) if options.all else list(SOME)
    table([*names, *DETECTORS, *GROWTH, *BUDGETS], not options.no_peer)


if __name__ == "__main__":
    main()
