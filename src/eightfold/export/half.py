"""The 16-bit form of a graph, float32 where range or precision demands it, found out on real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.export.half_emulation import verify_half
from eightfold.export.half_graph import LARGEST, HalfType, fits, half_graph
from eightfold.export.half_search import search_half
from eightfold.export.onnx_files import load_onnx, opset_of, save_onnx, tensor_specs
from eightfold.export.opset_conversion import with_opset
from eightfold.export.trials import runs_of
from eightfold.export.verify import Array, Arrays, Tolerance, runner, with_outputs
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step

if TYPE_CHECKING:
    import onnx

TOLERANCES: dict[HalfType, Tolerance] = {"float16": Tolerance(cosine=0.9999), "bfloat16": Tolerance(cosine=0.999)}


def half_onnx(
    path: PathLike,
    output: PathLike,
    *,
    keep_float: Iterable[str] = (),
    inputs: Arrays | None = None,
    kind: HalfType = "float16",
) -> Path:
    """Write the 16-bit form of a float32 ONNX file.

    Args:
        path: a fixed-size ONNX file, with or without Q/DQ pairs.
        output: where the result goes.
        keep_float: names of further nodes that stay in float32.
        inputs: real inputs by name; more rows than the network's batch are run in turn. On them, nodes stay in
            float32 that take or make values near the type's limit, or whose values are so small that it
            rounds them coarsely; and the result is compared with the original. Where its cosine is below 0.9999
            (0.999 for bfloat16), further nodes stay in float32: those that cost the most precision.
        kind: "float16", or "bfloat16": float32's range and eight bits of precision, for CPUs.

    Raises:
        VerificationError: no choice of nodes brings the cosine on `inputs` there; nothing is written.
    """
    return save_onnx(checked_half(path, keep_float=keep_float, inputs=inputs, kind=kind)[0], output)


def checked_half(
    path: PathLike, *, keep_float: Iterable[str] = (), inputs: Arrays | None = None, kind: HalfType = "float16"
) -> tuple[onnx.ModelProto, tuple[Step, ...]]:
    """The same in memory, with what the comparison found; no steps without `inputs`."""
    model = with_node_names(_typed_for(load_onnx(path), kind))
    if inputs is None:
        return half_graph(model, keep_float=keep_float, kind=kind), ()
    # Codes that fall on the other side of a rounding edge move the answer more than 16 bits do: recorded, not judged.
    tolerance = Tolerance() if is_quantized(model) else TOLERANCES[kind]
    runs = runs_of(tensor_specs(model)[0], inputs)
    kept = frozenset(keep_float)
    by_range = nodes_out_of_range(model, runs, kind=kind)
    by_precision = search_half(model, runs, keep_float=kept.union(by_range), tolerance=tolerance, kind=kind)
    made = half_graph(model, keep_float=kept.union(by_range, by_precision), kind=kind)
    step = verify_half(model, made, runs, tolerance=tolerance, kind=kind)
    notes = (*_notes(model, by_range, by_precision), *step.notes)
    return made, (step.model_copy(update={"notes": notes}),)


def _typed_for(model: onnx.ModelProto, kind: HalfType) -> onnx.ModelProto:
    """The graph in an operator set whose layers and Q/DQ pairs take `kind`: Conv takes bfloat16 from 22 on."""
    needed = 22 if kind == "bfloat16" else 19 if is_quantized(model) else 0
    return with_opset(model, max(needed, opset_of(model)), remedy=f"export it again with opset {needed}")


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether some of a graph runs on 8-bit codes between QuantizeLinear and DequantizeLinear."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def with_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give each node of `model` that has no name of its own one, in place; returns `model`."""
    taken: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
    return model


def nodes_out_of_range(model: onnx.ModelProto, runs: Sequence[Arrays], *, kind: HalfType = "float16") -> list[str]:
    """Names of nodes that take or make values near `kind`'s limit, or so small that it holds them coarsely."""
    from onnx import ModelProto

    names = [name for node in model.graph.node for name in node.output if name]
    probe = ModelProto()
    probe.CopyFrom(model)
    run = runner(with_outputs(probe, names), optimize=False)
    out = {name for feeds in runs for name, array in {**feeds, **run(feeds)}.items() if not _holds(array, kind)}
    return [node.name for node in model.graph.node if out & {*node.input, *node.output}]


def _holds(array: Array, kind: HalfType) -> bool:
    if array.dtype != np.float32 or not array.size:
        return True
    return bool(np.max(np.abs(array)) <= LARGEST[kind] / 2) and fits(array, kind)


def _notes(model: onnx.ModelProto, by_range: Sequence[str], by_precision: Sequence[str]) -> Iterator[str]:
    total = len(model.graph.node)
    for reason, names in (("range", by_range), ("precision", by_precision)):
        if names:
            yield f"kept in float32 for their {reason}, {len(names)} of {total} nodes: {', '.join(names)}"
