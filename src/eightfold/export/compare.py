"""Any two artifacts side by side: outputs, and for two graphs every tensor that both know, in order of computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eightfold.errors import ModelError, UsageError
from eightfold.export.onnx_files import load_onnx, tensor_specs
from eightfold.export.verify import (
    Array,
    Difference,
    compare,
    compare_in_order,
    difference,
    random_inputs,
    run_module_arrays,
    run_onnx,
    with_outputs,
)
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.runtime.bundle import Bundle
from eightfold.runtime.manifest import Artifact
from eightfold.values import Frozen


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


def compare_artifacts(first: Any, second: Any, *, inputs: dict[str, Array] | None = None) -> Comparison:
    """Run two artifacts on the same inputs and compare them.

    Args:
        first, second: a torch module (first only), an ONNX file, or "BUNDLE:ARTIFACT" for an ONNX artifact of a bundle.
        inputs: arrays by input name; random images when None. Real ones tell more.

    Raises:
        UsageError: the inputs of the two do not fit each other.
    """
    other = onnx_of(second)
    feeds = random_inputs(other) if inputs is None else inputs
    if not isinstance(first, str | Path):
        images = next(iter(feeds.values()))
        outputs = compare_in_order(run_module_arrays(first, images), run_onnx(other, feeds))
        return Comparison(first=type(first).__name__, second=str(second), outputs=outputs)
    graph = onnx_of(first)
    _require_same_inputs(graph, other)
    outputs = compare(run_onnx(graph, feeds), run_onnx(other, feeds))
    return Comparison(first=str(first), second=str(second), outputs=outputs, layers=_layers(graph, other, feeds))


def onnx_of(name: PathLike) -> Path:
    """The ONNX file that `name` means: a path, or "BUNDLE:ARTIFACT"."""
    bundle, colon, artifact_id = str(name).rpartition(":")
    if not colon or Path(name).exists():
        return Path(name)
    opened = Bundle.open(bundle)
    artifact: Artifact = opened.artifact(artifact_id)
    if artifact.format != "onnx":
        raise ModelError(
            f"artifact {artifact_id!r} is of format {artifact.format}",
            allowed="onnx: other formats run on their own device only",
            remedy="compare the ONNX file that it was built from",
        )
    return opened.artifact_path(artifact)


def plot_comparison(comparison: Comparison, path: PathLike) -> Path:
    """A plot of the error along the network: relative error of each layer on a logarithmic axis."""
    plt = require("matplotlib.pyplot", "plot a comparison")
    rows = [layer.difference for layer in comparison.layers] or list(comparison.outputs)
    errors = [max(row.max_rel_error, 1e-9) for row in rows]
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    axes.semilogy(range(len(rows)), errors, ".-", linewidth=0.8)
    axes.set(xlabel="tensor, in order of computation", ylabel="max relative error", title="Error along the network")
    axes.grid(alpha=0.3)
    figure.savefig(path)
    plt.close(figure)
    return Path(path)


def _layers(first: Path, second: Path, feeds: dict[str, Array]) -> tuple[Layer, ...]:
    graphs = load_onnx(first), load_onnx(second)
    outputs = {value.name for value in graphs[1].graph.output}
    known = {name for node in graphs[0].graph.node for name in node.output if name} - outputs
    nodes = {name: node for node in graphs[1].graph.node for name in node.output if name in known}
    if not nodes:
        return ()
    arrays = [run_onnx(with_outputs(graph, list(nodes)), feeds, optimize=False) for graph in graphs]
    rows = []
    for name, node in nodes.items():
        before, after = arrays[0][name], arrays[1][name]
        if before.shape == after.shape and np.issubdtype(before.dtype, np.floating):
            rows.append(Layer(difference=difference(name, before, after), node=node.name, op_type=node.op_type))
    return tuple(rows)


def _require_same_inputs(first: Path, second: Path) -> None:
    shapes = [[(spec.name, spec.shape) for spec in tensor_specs(load_onnx(path))[0]] for path in (first, second)]
    if shapes[0] != shapes[1]:
        raise UsageError(
            f"{first} takes {shapes[0]}, {second} takes {shapes[1]}", allowed="two networks with the same inputs"
        )


def _difference_row(row: Difference, what: str) -> str:
    errors = f"{row.max_abs_error:.3g}", f"{row.max_rel_error:.3g}", f"{row.cosine:.7f}"
    return _row(row.tensor, what, *errors)


def _row(name: str, *cells: str) -> str:
    shown = name if len(name) <= 60 else "..." + name[-57:]
    return f"{shown:<60}" + "".join(f" {cell:>12}" for cell in cells)
