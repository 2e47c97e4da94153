"""Any two artifacts side by side: outputs, and for two graphs every tensor that both know, in order of computation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.errors import ModelError, UsageError
from eightfold.export.onnx_files import load_onnx
from eightfold.export.subjects import Subject, subject_of
from eightfold.export.verify import Arrays, Difference, compare, difference, random_inputs_of, run_onnx, with_outputs
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.runtime.manifest import TensorSpec
from eightfold.values import Frozen

if TYPE_CHECKING:
    import torch


SMALLEST_SHOWN = 1e-9  # a logarithmic axis has no zero
NAMED_IN_PLOT = 3


class Layer(Frozen):
    """One tensor of a comparison and the node that makes it in the second graph."""

    difference: Difference
    node: str
    op_type: str


class Comparison(Frozen):
    """Two artifacts on the same inputs.

    Attributes:
        first, second: what was compared, as it was named.
        outputs: differences of the outputs.
        layers: differences of the tensors in between, in order; empty unless both are graphs that share names.
    """

    first: str
    second: str
    outputs: tuple[Difference, ...]
    layers: tuple[Layer, ...] = ()

    def describe(self, worst: int = 0) -> str:
        """A table; with `worst`, only that many layers with the lowest cosine."""
        layers = sorted(self.layers, key=lambda layer: layer.difference.cosine)[:worst] if worst else self.layers
        lines = [f"{self.first} against {self.second}", _row("tensor", "op", "max abs", "max rel", "cosine")]
        lines += [_difference_row(layer.difference, layer.op_type) for layer in layers]
        lines += [_difference_row(output, "output") for output in self.outputs]
        return "\n".join(lines)


def compare_artifacts(
    first: torch.nn.Module | PathLike | Subject,
    second: torch.nn.Module | PathLike | Subject,
    *,
    inputs: Arrays | None = None,
    image_shape: tuple[int, int, int, int] = (1, 3, 224, 224),
) -> Comparison:
    """Run any two artifacts on the same inputs and compare them.

    Args:
        first, second: torch modules, ONNX files, OpenVINO models, engines or artifacts of bundles; see `subject_of`.
        inputs: arrays by input name; random images when None. Real ones tell more.
        image_shape: (batch, channels, height, width) of those, where neither artifact says what it takes.

    Raises:
        BackendError: this machine cannot run one of them.
        UsageError: the inputs of the two do not fit each other.
    """
    subjects = subject_of(first), subject_of(second)
    wanted = _common_inputs(*subjects) or (TensorSpec(name="images", dtype="float32", shape=image_shape),)
    feeds = random_inputs_of(wanted) if inputs is None else inputs
    reference, seen = (each.run(feeds) for each in subjects)
    graphs = [each.graph for each in subjects]
    return Comparison(
        first=subjects[0].name,
        second=subjects[1].name,
        outputs=compare(reference, seen),
        layers=_layers(graphs[0], graphs[1], feeds) if graphs[0] and graphs[1] else (),
    )


def plot_comparison(comparison: Comparison, path: PathLike) -> Path:
    """A plot of the error along the network: relative error and 1 - cosine of each tensor on a logarithmic axis, the
    worst ones named."""
    plt = require("matplotlib.pyplot", "plot a comparison")
    rows = [layer.difference for layer in comparison.layers] + list(comparison.outputs)
    errors = [max(row.max_rel_error, SMALLEST_SHOWN) for row in rows]
    angles = [max(1 - row.cosine, SMALLEST_SHOWN) for row in rows]
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    axes.semilogy(range(len(rows)), errors, ".-", linewidth=0.8, label="max relative error")
    axes.semilogy(range(len(rows)), angles, ".-", linewidth=0.8, label="1 - cosine")
    for place in _worst_apart(angles):
        name, left = rows[place].tensor, place < len(rows) / 2
        shown = name if len(name) <= 32 else "..." + name[-29:]
        beside = {"xytext": (3 if left else -3, 5), "textcoords": "offset points", "ha": "left" if left else "right"}
        axes.annotate(shown, (place, angles[place]), fontsize=7, **beside)
    axes.set(xlabel="tensor, in order of computation; outputs last", ylabel="error")
    axes.set_title(f"{Path(comparison.first).name} against {Path(comparison.second).name}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    plt.close(figure)
    return Path(path)


def _worst_apart(errors: Sequence[float]) -> list[int]:
    """Places of the largest errors, far enough from each other that their names do not meet."""
    apart = len(errors) / (2 * NAMED_IN_PLOT)
    chosen: list[int] = []
    for place in sorted(range(len(errors)), key=lambda each: -errors[each]):
        if len(chosen) < NAMED_IN_PLOT and all(abs(place - other) > apart for other in chosen):
            chosen.append(place)
    return chosen


def _layers(first: Path, second: Path, feeds: Arrays) -> tuple[Layer, ...]:
    graphs = load_onnx(first), load_onnx(second)
    outputs = {value.name for value in graphs[1].graph.output}
    known = {name for node in graphs[0].graph.node for name in node.output if name} - outputs
    nodes = {name: node for node in graphs[1].graph.node for name in node.output if name in known}
    if not nodes:
        return ()
    try:
        arrays = [run_onnx(with_outputs(graph, list(nodes)), feeds, optimize=False) for graph in graphs]
    except ModelError:  # what onnxruntime does not run, other back ends answer as a whole
        return ()
    rows = []
    for name, node in nodes.items():
        before, after = arrays[0][name], arrays[1][name]
        if before.shape == after.shape and np.issubdtype(before.dtype, np.floating):
            rows.append(Layer(difference=difference(name, before, after), node=node.name, op_type=node.op_type))
    return tuple(rows)


def _common_inputs(first: Subject, second: Subject) -> tuple[TensorSpec, ...]:
    """What both take; empty where neither says."""
    shapes = [[(spec.name, spec.shape) for spec in each.inputs] for each in (first, second)]
    if all(shapes) and shapes[0] != shapes[1]:
        raise UsageError(
            f"{first.name} takes {_shown(first)}, {second.name} takes {_shown(second)}",
            allowed="two networks with the same inputs",
        )
    return first.inputs or second.inputs


def _shown(subject: Subject) -> str:
    return ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in subject.inputs)


def _difference_row(row: Difference, what: str) -> str:
    errors = f"{row.max_abs_error:.3g}", f"{row.max_rel_error:.3g}", f"{row.cosine:.7f}"
    return _row(row.tensor, what, *errors)


def _row(name: str, *cells: str) -> str:
    shown = name if len(name) <= 60 else "..." + name[-57:]
    return f"{shown:<60}" + "".join(f" {cell:>12}" for cell in cells)
