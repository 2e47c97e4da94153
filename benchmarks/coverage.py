"""Prune every network of a long list at keep ratio 0.5, and write what happened to each into docs/coverage.md.

Usage: python benchmarks/coverage.py [NAME ...] [--output docs/coverage.md]
NAME: a torchvision model (video:NAME, flow:NAME and quantizable:NAME for those families), timm:MODEL, or an ultralytics
YAML such as yolov8n.yaml; by default all names of `coverage_names.txt`. With --rows FILE, finished rows are kept there
and an interrupted run goes on behind them.

Each network is built with random weights (batch norms get statistics and scales of a trained network's kind, so that
every channel matters), traced, planned, checked by the correctness rule with a random plan (the pruned network against
the original with the removed channels zeroed, in float64 where networks choose by comparing floats), pruned by L2 norm,
and run in both modes. No network is skipped: one that fails stands in the table with its error.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from coverage_networks import build, enliven
from masked_reference import masked_error, outputs, random_plan
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

import eightfold as ef
from eightfold.compress import plan_pruning as prune
from eightfold.compress.check import checked
from eightfold.compress.modules.modules import call_model, preserved
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import PruneReport, Width
from eightfold.compress.trace.fake.fake_run import FakeRun
from eightfold.compress.trace.groups import ChannelGraph

HERE = Path(__file__).parent
MULTIPLE = 8
TOLERANCE = 1e-4
NORMS_SECTION = "## With layer norms\n"  # of `coverage_norms.py`


@dataclass(frozen=True)
class Row:
    """One network's line in the table."""

    name: str
    verdict: str  # "works", or what went wrong
    parameters: int = 0
    layers: int = 0
    free: float = 0.0  # share of the coupled channels that may be pruned
    left: float = 0.0  # parameters after / before
    prune_s: float = 0.0  # CPU seconds of trace, groups, scores, allocation and surgery
    check_s: float = 0.0  # CPU seconds of running the pruned network until it fits
    error: float = 0.0
    frozen: str = ""


def measure(name: str) -> Row:
    """Trace, check and prune one network."""
    torch.manual_seed(0)
    model, inputs = build(name)
    enliven(model)
    parameters = ef.count_parameters(model)
    trained = training_shapes(model, inputs)
    start = time.process_time()
    graph = ef.trace(model, inputs)
    with check_timed() as check:
        plan = ef.plan_pruning(model, inputs, graph=graph)
    spent = time.process_time() - start
    error = _oracle(model, inputs, graph)
    start = time.process_time()
    report = ef.apply_plan(model, plan)
    spent += time.process_time() - start
    widths = sum(group.width for group in graph.groups)
    return Row(
        name,
        _verdict(model, inputs, graph, plan, report, error, trained),
        parameters,
        len(graph.layers),
        sum(group.width for group in graph.free) / max(widths, 1),
        report.parameters_after / report.parameters_before,
        spent - sum(check),
        sum(check),
        error,
        _what_froze(graph, plan),
    )


@contextmanager
def check_timed() -> Iterator[list[float]]:
    """CPU seconds that planning spends on running the pruned network."""
    seconds: list[float] = []
    original = prune.checked

    def timed(*args: Any) -> PrunePlan:
        start = time.process_time()
        try:
            return original(*args)
        finally:
            seconds.append(time.process_time() - start)

    prune.checked = timed
    try:
        yield seconds
    finally:
        prune.checked = original


def _oracle(model: nn.Module, inputs: Any, graph: ChannelGraph) -> float:
    """Error of a random plan; in float64 where float32 rounds too much, or decides which boxes stay."""
    plan = checked(model, inputs, random_plan(graph), graph)
    probed = graph if graph.data_dependent else None
    if probed is None and (error := masked_error(model, inputs, plan)) <= TOLERANCE:
        return error
    try:
        return masked_error(model.double(), tree_map(torch.Tensor.double, inputs), plan, probed)
    finally:
        model.float()


def _verdict(
    model: nn.Module,
    inputs: Any,
    graph: ChannelGraph,
    plan: PrunePlan,
    report: PruneReport,
    error: float,
    trained: list[tuple[int, ...]],
) -> str:
    if error > TOLERANCE:
        return f"differs from the zeroed original by {error:.1e}"
    crooked = misaligned(graph, plan, report)
    if crooked:
        return f"misaligned: {crooked[0]} and {len(crooked) - 1} more"
    shapes = [tuple(tensor.shape) for tensor in outputs(model, inputs)]
    if not graph.data_dependent and shapes != list(graph.outputs):
        return "other output shapes"
    return "works" if training_shapes(model, inputs) == trained else "other output shapes in training mode"


def training_shapes(model: nn.Module, inputs: Any) -> list[tuple[int, ...]]:
    """Shapes of what the network returns in training mode; torchvision's detectors return losses for boxes."""
    inputs = tree_map(lambda x: torch.cat([x, x]) if x.dim() > 3 else x, inputs)
    if isinstance(inputs, tuple) and isinstance(inputs[0], list):
        inputs = ([*inputs[0], *inputs[0]], [_target(image) for _ in range(2) for image in inputs[0]])
    with preserved(model), torch.no_grad(), FakeRun():  # shapes are what counts
        model.train()
        result = call_model(model, inputs)
    return [tuple(leaf.shape) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _target(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """One object in the middle of the image, in every form that a detector may want it."""
    _, height, width = image.shape
    points = torch.tensor([[width / 2, height / 2, 1.0]]).expand(1, 17, 3)
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    box = torch.tensor([[width / 4, height / 4, width / 2, height / 2]])
    return {"boxes": box, "labels": torch.ones(1, dtype=torch.int64), "masks": mask, "keypoints": points}


def misaligned(graph: ChannelGraph, plan: PrunePlan, report: PruneReport) -> list[str]:
    """Weights of layers with a width that is no multiple of 8, though no group of theirs is frozen, narrow or whole."""
    whole = [g for g in graph.groups if g.frozen or g.width < MULTIPLE or g.id not in plan.kept]
    excused = {member.tensor for group in whole for member in group.members}
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
channels zeroed, within {tolerance:g} of the largest output (in float64 where float32 rounds more than that, and at the
heads of detectors that choose boxes by comparing floats); the pruned network runs in evaluation mode and in
training mode with the original output shapes; every width of an ungrouped convolution or linear layer is a multiple of
8, unless a group of its channels is narrower, frozen, or fixed by the model's code.

*free* is the share of coupled channels that may be pruned, *left* the parameters that stay, *error* the largest
relative difference from the zeroed original. *prune* is trace, groups, scores, allocation and surgery; *check* is
running the pruned network until it fits. *frozen by* is the share of channels that each reason keeps whole; the last
section says what the reasons mean.

CPU seconds of one thread of {machine}, torch {torch}. The longest prune time is {slowest}.

| network | verdict | parameters (M) | layers | free | left | prune (s) | check (s) | error | frozen by |
|---|---|---|---|---|---|---|---|---|---|
"""

REASONS = {
    "output of the model": "they are what the caller gets: classes, boxes, masks",
    "layer norm, var, max ... over channels": "the result depends on how many channels there are",
    "mean over channels": "likewise, and no weight behind it can make that good: it is subtracted, say, or several "
    "layers share the weight",
    "one group norm over all channels": "likewise; with several norm groups, whole groups go",
    "the scale of attention follows the head width": "its root divides the scores; whole heads go where the code reads "
    "their number from an attribute",
    "statistics over channels": "weight standardization: mean and variance run over a filter's inputs",
    "softmax, sort, topk ... over channels": "channels compete with each other",
    "... over channels that stay nonzero without their layer": "behind a sigmoid or exp, a removed channel would still "
    "add a constant to the sum",
    "cut at a fixed position, indexed by position, taken by its position": "the code names channels by number",
    "a size fixed in the code": "the network does not run as traced at another width: the number stands in its code "
    "or comes from a width that cannot shrink",
    "convolved along, ... along channels": "the operator slides over neighbouring channels",
    "... with a tensor of fixed size": "the other operand is no parameter and does not follow",
    "no layer produces it": "embeddings and learned tokens: no convolution or linear layer makes these channels",
    "operator NAME": "no rule is known for this operator",
}


def markdown(rows: list[Row]) -> str:
    """The page."""
    head = HEAD.format(
        works=sum(row.verdict == "works" for row in rows),
        count=len(rows),
        tolerance=TOLERANCE,
        machine=platform.machine(),
        torch=torch.__version__,
        slowest="{0.prune_s:.2f} s ({0.name})".format(max(rows, key=lambda row: row.prune_s)),
    )
    return head + "\n".join([*map(_line, rows), *_reasons()]) + "\n"


def _reasons() -> list[str]:
    head = ["", "## What froze what", "", "| reason | why these channels stay |", "|---|---|"]
    return [*head, *(f"| {reason} | {meaning} |" for reason, meaning in REASONS.items())]


def _line(row: Row) -> str:
    cells = (
        row.name, row.verdict, f"{row.parameters / 1e6:.1f}", str(row.layers), f"{row.free:.0%}", f"{row.left:.0%}",
        f"{row.prune_s:.2f}", f"{row.check_s:.2f}", f"{row.error:.0e}", row.frozen,
    )  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--output", type=Path, default=HERE.parent / "docs" / "coverage.md")
    parser.add_argument("--rows", type=Path, help="finished rows, one JSON object a line; rows that it holds are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {row.name: row for row in _read(options.rows)}
    rows = []
    for name in options.names or (HERE / "coverage_names.txt").read_text().split():
        rows.append(known.get(name) or attempt(name))
        if options.rows and name not in known:
            with options.rows.open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
        print(_line(rows[-1]), flush=True)
        # Another program makes the last section.
        _, mark, section = (options.output.read_text() if options.output.exists() else "").partition(NORMS_SECTION)
        options.output.write_text(markdown(rows) + (f"\n{mark}{section}" if mark else ""))


def _read(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
