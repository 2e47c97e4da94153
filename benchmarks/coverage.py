"""Prune every network of a long list at keep ratio 0.5, and write what happened to each into docs/coverage.md.

Usage: python benchmarks/coverage.py [NAME ...] [--output docs/coverage.md]
NAME: a torchvision model, timm:MODEL, or an ultralytics YAML such as yolov8n.yaml; by default all names of
`coverage_names.txt`.

Each network is built with random weights (batch norms get statistics and scales of a trained network's kind, so that
every channel matters), traced, planned, checked by the correctness rule with a random plan (the pruned network against
the original with the removed channels zeroed, in float64 for detectors), pruned by L2 norm, and run in both modes.
No network is skipped: one that fails stands in the table with its error.
"""

from __future__ import annotations

import argparse
import gc
import platform
import re
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import eightfold as ef
from eightfold.compress.check import checked
from eightfold.compress.groups import ChannelGraph
from eightfold.compress.oracle import oracle_error, outputs, random_plan
from eightfold.compress.plan import PrunePlan
from eightfold.compress.surgery import PruneReport, Width

HERE = Path(__file__).parent
MULTIPLE = 8
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One network's line in the table."""

    name: str
    verdict: str  # "works", or what went wrong
    parameters: int = 0
    layers: int = 0
    free: float = 0.0  # share of the coupled channels that may be pruned
    left: float = 0.0  # parameters after / before
    trace_s: float = 0.0
    prune_s: float = 0.0
    error: float = 0.0
    frozen: str = ""


def build(name: str) -> tuple[nn.Module, Any]:
    """The network called `name` with random weights, and an input for it."""
    if name.endswith(".yaml"):
        return _ultralytics(name)
    if name.startswith("timm:"):
        return _timm(name.removeprefix("timm:"))
    return _torchvision(name)


def _ultralytics(name: str) -> tuple[nn.Module, Any]:
    from ultralytics.nn import tasks

    kinds = {"-seg": tasks.SegmentationModel, "-pose": tasks.PoseModel, "-obb": tasks.OBBModel}
    kind = next((kind for part, kind in kinds.items() if part in name), tasks.DetectionModel)
    return kind(name, verbose=False), torch.rand(1, 3, 128, 128)


def _timm(name: str) -> tuple[nn.Module, Any]:
    import timm

    model = timm.create_model(name, pretrained=False)
    size = model.default_cfg["input_size"][1]
    small = torch.rand(1, 3, 128, 128)
    try:
        with torch.no_grad():
            model.eval()(small)
    except Exception:  # whatever a model's code raises: it wants the size it was made for
        return model, torch.rand(1, 3, size, size)
    return model, small


def _torchvision(name: str) -> tuple[nn.Module, Any]:
    from torchvision import models

    for family in (models.detection, models.segmentation):
        if hasattr(family, name):
            small = {"min_size": 160, "max_size": 320} if re.search("rcnn|retina|fcos", name) else {}
            model = getattr(family, name)(weights=None, weights_backbone=None, **small)
            return model, ([torch.rand(3, 128, 128)],) if family is models.detection else torch.rand(1, 3, 128, 128)
    size = 299 if "inception" in name else 224 if re.search("vit|swin", name) else 64
    return models.get_model(name, weights=None), torch.rand(1, 3, size, size)


def enliven(model: nn.Module) -> nn.Module:
    """Give constant parameters and batch norm statistics some spread, so that no channel is silent."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.data = 0.2 * torch.randn(module.running_mean.shape, generator=generator)
            module.running_var.data = 0.5 + torch.rand(module.running_mean.shape, generator=generator)
    for parameter in model.parameters():
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def measure(name: str) -> Row:
    """Trace, check and prune one network."""
    torch.manual_seed(0)
    model, inputs = build(name)
    enliven(model)
    parameters = ef.count_parameters(model)
    start = time.perf_counter()
    graph = ef.trace(model, inputs)
    traced = time.perf_counter()
    plan = ef.plan_pruning(model, inputs, graph=graph)
    planned = time.perf_counter()
    error = _oracle(model, inputs, graph)
    start_apply = time.perf_counter()
    report = ef.apply_plan(model, plan)
    prune_s = planned - traced + time.perf_counter() - start_apply
    widths = sum(group.width for group in graph.groups)
    return Row(
        name,
        _verdict(model, inputs, graph, report, error),
        parameters,
        len(graph.layers),
        sum(group.width for group in graph.free) / max(widths, 1),
        report.parameters_after / report.parameters_before,
        traced - start,
        prune_s,
        error,
        _what_froze(graph, plan),
    )


def _oracle(model: nn.Module, inputs: Any, graph: ChannelGraph) -> float:
    """Error of a random plan. Detectors choose boxes by comparing floats: float64 keeps the choices equal."""
    plan = checked(model, inputs, random_plan(graph), graph)
    if isinstance(inputs, torch.Tensor):
        return oracle_error(model, inputs, plan)
    try:
        return oracle_error(model.double(), ([image.double() for image in inputs[0]],), plan, graph)
    finally:
        model.float()


def _verdict(model: nn.Module, inputs: Any, graph: ChannelGraph, report: PruneReport, error: float) -> str:
    if error > TOLERANCE:
        return f"differs from the zeroed original by {error:.1e}"
    crooked = misaligned(graph, report)
    if crooked:
        return f"misaligned: {crooked[0]} and {len(crooked) - 1} more"
    shapes = [tuple(tensor.shape) for tensor in outputs(model, inputs)]
    if not graph.data_dependent and shapes != list(graph.outputs):
        return "other output shapes"
    return _trains(model, inputs)


def _trains(model: nn.Module, inputs: Any) -> str:
    """Run once in training mode; detectors want targets then, and are run in evaluation mode only."""
    if not isinstance(inputs, torch.Tensor):
        return "works"
    model.train()
    model(torch.cat([inputs, inputs]))
    return "works"


def misaligned(graph: ChannelGraph, report: PruneReport) -> list[str]:
    """Weights of layers with a width that is no multiple of 8, though none of its groups is frozen or narrow."""
    excused = {m.tensor for g in graph.groups if g.frozen or g.width < MULTIPLE for m in g.members}
    weights = {layer.weight for layer in graph.layers if layer.groups == 1} - excused
    return [w.weight for w in report.changed if w.weight in weights and _crooked(w)]


def _crooked(width: Width) -> bool:
    return any(new % MULTIPLE and old >= MULTIPLE for old, new in zip(width.before, width.after, strict=True))


def _what_froze(graph: ChannelGraph, plan: PrunePlan) -> str:
    """Reasons, without the place, with their share of the coupled channels; the image and the outputs are left out."""
    channels: Counter[str] = Counter()
    for group in graph.groups:
        if group.frozen:
            channels[re.sub(r" in (?!front).*| is not used.*", "", group.frozen)] += group.width
        elif group.prunable(MULTIPLE) and group.id not in plan.kept and group.width >= 2 * group.step(MULTIPLE):
            channels["a size fixed in the code"] += group.width
    total = sum(group.width for group in graph.groups)
    shown = [f"{why} {count / total:.0%}" for why, count in channels.most_common(4) if count / total >= 0.005]
    return ", ".join(text for text in shown if not text.startswith("input without"))


def attempt(name: str) -> Row:
    """`measure`, or a row that names the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(name)
    except Exception as error:  # whatever a model's code raises belongs in the table
        return Row(name, f"{type(error).__name__}: {str(error).splitlines()[0]:.120}")
    finally:
        gc.collect()


HEAD = """# Coverage of pruning

{works} of {count} networks work. Made by `make coverage`; every network is at keep ratio 0.5 with multiple 8.

"Works": nothing was given but the network and an input; the result of a random plan equals the original with removed
channels zeroed, within {tolerance:g} of the largest output; the pruned network runs in evaluation mode with the
original output shapes and (detectors of torchvision apart, which want targets) in training mode; every width of an
ungrouped convolution or linear layer is a multiple of 8, unless a group of its channels is narrower or frozen.

*free* is the share of coupled channels that may be pruned, *left* the parameters that stay, *error* the largest
relative difference from the zeroed original, *frozen by* the share of channels that each reason keeps whole.

One thread of {machine}, torch {torch}; the machine did other work meanwhile, so times are upper bounds.

| network | verdict | parameters (M) | layers | free | left | trace (s) | plan, check, apply (s) | error | frozen by |
|---|---|---|---|---|---|---|---|---|---|
"""


def markdown(rows: list[Row]) -> str:
    """The page."""
    head = HEAD.format(
        works=sum(row.verdict == "works" for row in rows),
        count=len(rows),
        tolerance=TOLERANCE,
        machine=platform.machine(),
        torch=torch.__version__,
    )
    return head + "\n".join(map(_line, rows)) + "\n"


def _line(row: Row) -> str:
    cells = (
        row.name, row.verdict, f"{row.parameters / 1e6:.1f}", str(row.layers), f"{row.free:.0%}", f"{row.left:.0%}",
        f"{row.trace_s:.2f}", f"{row.prune_s:.2f}", f"{row.error:.0e}", row.frozen,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "coverage.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.names or (HERE / "coverage_names.txt").read_text().split()
    rows = []
    for name in names:
        rows.append(attempt(name))
        print(_line(rows[-1]), flush=True)
        options.output.write_text(markdown(rows))


if __name__ == "__main__":
    main()
