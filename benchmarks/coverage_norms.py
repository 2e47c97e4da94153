"""Widths that become free with `layer_norms`, over the networks of docs/coverage.md; writes that page's last section.

Usage: python benchmarks/coverage_norms.py [NAME ...] [--rows FILE]
By default all networks that the page says a layer norm, or something like one, keeps channels of whole. Finished rows
are kept in build/, and an interrupted run goes on behind them.

Each network is checked by a random plan: the pruned network against the original with the removed channels zeroed,
whose layer norms and group norms take mean and variance over the channels that stay. Norms that the code makes of means
and variances cannot be held to that: such networks have to run, and to give the original output shapes.
"""

from __future__ import annotations

import argparse
import gc
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coverage import HERE, TOLERANCE, misaligned
from coverage import NORMS_SECTION as SECTION
from coverage_networks import build, enliven
from kept_rows import SOURCE, KeptRows
from masked_reference import outputs, random_plan, zeroed
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

import eightfold as ef
from eightfold.compress.check import checked
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace

PAGE = HERE.parent / "docs" / "coverage.md"
REASONS = ("layer norm over", "one group norm", "var over", "var_mean over", "mean over channels")
aten = torch.ops.aten


class KeptStatistics(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    """Layer norms and group norms take mean and variance over the channels that stay."""

    def __init__(self, kept: Mapping[int, Tensor]) -> None:
        """`kept`: id of a norm's scale -> the positions of its channels that stay."""
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.kept = kept

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is aten.native_layer_norm.default and id(args[2]) in self.kept:
            x, _, scale, shift, epsilon = args
            return self._normalized(x, x.dim() - 1, [x.dim() - 1], scale, shift, epsilon)
        if func is aten.native_group_norm.default and id(args[1]) in self.kept:
            x, scale, shift, epsilon = args[0], args[1], args[2], args[7]
            return self._normalized(x, 1, list(range(1, x.dim())), scale, shift, epsilon)
        return func(*args, **(kwargs or {}))

    def _normalized(
        self, x: Tensor, dim: int, dims: list[int], scale: Tensor, shift: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = x.index_select(dim, self.kept[id(scale)])
        mean = own.mean(dims, keepdim=True)
        root = (own.var(dims, unbiased=False, keepdim=True) + epsilon).rsqrt()
        shape = [-1 if each == dim else 1 for each in range(x.dim())]
        out = (x - mean) * root * scale.reshape(shape)
        return out if shift is None else out + shift.reshape(shape), mean, root


def norm_error(model: nn.Module, inputs: Any, plan: PrunePlan, graph: ChannelGraph) -> float | None:
    """Largest difference, relative to the outputs; None where a norm has no scale by which to find it."""
    changed = [
        norm for norm in graph.norms if {graph.groups[g].id for g in norm.channels[:, 0] if g >= 0} & plan.kept.keys()
    ]
    if any(not norm.weight for norm in changed):
        return None
    parameters, kept = dict(model.named_parameters()), plan.kept
    stays = [np.isin(np.arange(group.width), kept.get(group.id, np.arange(group.width))) for group in graph.groups]
    masks = {
        id(parameters[norm.weight]): torch.tensor(
            [
                place
                for place, (group, channel) in enumerate(norm.channels.tolist())
                if group < 0 or stays[group][channel]
            ]
        )
        for norm in changed
    }
    with zeroed(model, plan), KeptStatistics(masks):
        expected = outputs(model, inputs)
    with applied(model, plan):
        seen = outputs(model, inputs)
    scales = [float(each.double().abs().max()) + 1e-12 for each in expected]
    pairs = zip(seen, expected, scales, strict=True)
    return max(float((a.double() - b.double()).abs().max()) / scale for a, b, scale in pairs)


def measure(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    model, inputs = build(name)
    enliven(model)
    row: dict[str, Any] = {}
    for layer_norms in (False, True):
        graph = trace(model, inputs, layer_norms=layer_norms)
        plan = ef.plan_pruning(model, inputs, graph=graph)
        before, after = ({n: int(np.prod(s)) for n, s in t.items()} for t in (plan.shapes, plan.pruned_shapes()))
        widths = sum(group.width for group in graph.groups)
        which = "norms" if layer_norms else "default"
        row[f"free_{which}"] = sum(group.width for group in graph.free) / max(widths, 1)
        row[f"left_{which}"] = sum(after.values()) / sum(before.values())
    trial = checked(model, inputs, random_plan(graph), graph)
    error = norm_error(model, inputs, trial, graph)
    if error is not None and error > TOLERANCE:
        error = norm_error(model.double(), inputs.double(), trial, graph)
        model.float()
    report = ef.apply_plan(model, plan)
    crooked = misaligned(graph, plan, report)
    shapes = [tuple(tensor.shape) for tensor in outputs(model, inputs)]
    if error is not None and error > TOLERANCE:
        row["verdict"] = f"differs by {error:.1e}"
    elif crooked:
        row["verdict"] = f"misaligned: {crooked[0]}"
    else:
        row["verdict"] = "works" if graph.data_dependent or shapes == list(graph.outputs) else "other output shapes"
    return {**row, "error": error}


def section(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The page's section."""
    good = {name: row for name, row in rows.items() if "free_norms" in row}
    gained = {name: row for name, row in good.items() if row["free_norms"] > row["free_default"] + 1e-9}
    works = sum(row["verdict"] == "works" for row in good.values())
    narrower = sum(row["left_norms"] < row["left_default"] for row in good.values())
    lines = [
        SECTION,
        "With `layer_norms` (see [pruning](pruning.md)), channels become free that such norms keep whole above:",
        f"in {len(gained)} of {len(rows)} networks, of which {narrower} get smaller at keep ratio 0.5;",
        f"the code of the others fixes the width. {works} of {len(rows)} work. *error* is the largest difference",
        "from the original with zeroed channels, whose norms are over the channels that stay. It is not measured",
        "where the code makes the norm of means and variances. Made by `python benchmarks/coverage_norms.py`.",
        "",
        "| network | verdict | free | with layer norms | left | with layer norms | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if "free_norms" not in row:
            lines.append(f"| {name} | {row['verdict']} | | | | | |")
            continue
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        shares = " | ".join(f"{row[key]:.0%}" for key in ("free_default", "free_norms", "left_default", "left_norms"))
        lines.append(f"| {name} | {row['verdict']} | {shares} | {error} |")
    return "\n".join(lines) + "\n"


def concerned() -> list[str]:
    """Names of the page whose channels such norms keep whole."""
    lines = [line for line in PAGE.read_text().partition(SECTION)[0].splitlines() if line.count("|") == 11]
    rows = [line.split("|") for line in lines]
    return [cells[1].strip() for cells in rows if any(reason in cells[10] for reason in REASONS)]


def attempt(name: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return measure(name)
    except Exception as error:  # whatever a model's code raises belongs in the table
        return {"verdict": f"{type(error).__name__}: {re.sub(r'[|]', '/', str(error).splitlines()[0]):.120}"}
    finally:
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--any-code", action="store_true", help="take kept rows that other code gave, too")
    parser.add_argument("--rows", type=Path, default=HERE.parent / "build" / "coverage_norms.jsonl")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(options.rows, any_code=options.any_code, code_in=(SOURCE / "compress",))
    names = options.names or concerned()
    for name in names:
        if name not in kept.rows:
            kept.add(name, attempt(name))
            print(name, kept.rows[name], flush=True)
    if not options.names:
        page = PAGE.read_text().partition(SECTION)[0].rstrip("\n")
        PAGE.write_text(page + "\n\n" + section({name: kept.rows[name] for name in names}))


if __name__ == "__main__":
    main()
