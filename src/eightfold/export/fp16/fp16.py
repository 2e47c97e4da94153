"""The 16-bit form of a graph, float32 where range or precision demands it, found out on real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from eightfold.arrays import Arrays
from eightfold.errors import ModelError, UnknownNameError
from eightfold.export.fp16.fp16_emulation import verify_fp16
from eightfold.export.fp16.fp16_graph import ELEM_TYPES, HalfType, fp16_graph
from eightfold.export.fp16.fp16_range import nodes_near_limit, nodes_not_finite, nodes_out_of_range
from eightfold.export.fp16.fp16_search import search_fp16
from eightfold.export.opset.opset_conversion import with_opset
from eightfold.export.verify.test_inputs import answers_to, input_sets_of
from eightfold.export.verify.verify import Tolerance, runner
from eightfold.extras import installed
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx, opset_of, save_onnx
from eightfold.runtime.bundle.manifest import Step

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
            (0.999 for bfloat16), further nodes stay in float32: those that cost the most precision. So do those that
            would overflow, or make an answer that is not finite, on constants, extremes and noise. Without them
            answers to random values are compared, which have to be finite.
        kind: "float16", or "bfloat16": float32's range and eight bits of precision, for CPUs.

    Raises:
        UnknownNameError: the graph has no node of a name in `keep_float`.
        VerificationError: no choice of nodes brings the cosine on `inputs` there, or an answer is not finite on
            extremes where it is in float32; nothing is written.
    """
    return save_onnx(checked_fp16(path, keep_float=keep_float, inputs=inputs, kind=kind).model, output)


class Fp16Graph(NamedTuple):
    """A graph in 16 bits, what the comparison on inputs found, and the nodes that it left in float32."""

    model: onnx.ModelProto
    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()


def checked_fp16(
    path: PathLike,
    *,
    keep_float: Iterable[str] = (),
    inputs: Arrays | None = None,
    kind: HalfType = "float16",
    model: onnx.ModelProto | None = None,
) -> Fp16Graph:
    """The same in memory, with the result of the comparison.

    Without `inputs` there is none where onnxruntime is not installed, as on boards that only build.

    Args:
        model: content of the file, if it is loaded already; its nodes get names in place.
    """
    model = load_onnx(path) if model is None else model
    _require_float32(model, path)
    model = with_node_names(_typed_for(model, kind))
    keep_float = tuple(keep_float)
    _require_nodes(model, keep_float)
    if inputs is None:
        made = fp16_graph(model, keep_float=keep_float, kind=kind)
        return Fp16Graph(made, _compared_on_random_values(model, made, kind))
    # Codes that fall on the other side of a rounding edge move the answer more than 16 bits do: recorded, not judged.
    tolerance = Tolerance() if is_quantized(model) else TOLERANCES[kind]
    input_sets = input_sets_of(input_specs(model), inputs)
    answered, _ = answers_to(runner(model), input_sets)
    images, *others = (input_sets[name] for name in answered)
    extremes = [each for runs in others for each in runs]
    by_range = nodes_out_of_range(model, images, kind=kind)
    by_extremes = [name for name in nodes_near_limit(model, extremes, kind=kind) if name not in by_range]
    kept = {*keep_float, *by_range, *by_extremes}
    by_precision = search_fp16(model, images, keep_float=kept, tolerance=tolerance, kind=kind)
    by_extremes += nodes_not_finite(model, extremes, keep_float=kept.union(by_precision), kind=kind)
    made = fp16_graph(model, keep_float=kept.union(by_precision, by_extremes), kind=kind)
    step = verify_fp16(model, made, input_sets, tolerance=tolerance, kind=kind)
    reasons = {"range": by_range, "range on extremes": by_extremes, "precision": by_precision}
    noted = step.model_copy(update={"notes": (*_notes(model, reasons), *step.notes)})
    return Fp16Graph(made, (noted,), tuple(dict.fromkeys((*by_range, *by_extremes, *by_precision))))


def _compared_on_random_values(model: onnx.ModelProto, made: onnx.ModelProto, kind: HalfType) -> tuple[Step, ...]:
    if not installed("onnxruntime"):
        return ()
    first = next(iter(input_sets_of(input_specs(model)).items()))
    return (verify_fp16(model, made, dict([first]), tolerance=Tolerance(), kind=kind),)


def _require_nodes(model: onnx.ModelProto, names: Iterable[str]) -> None:
    known = {node.name for node in model.graph.node}
    for name in names:
        if name not in known:
            raise UnknownNameError.of("node", name, known)


def _require_float32(model: onnx.ModelProto, path: PathLike) -> None:
    halved = [tensor.name for tensor in model.graph.initializer if tensor.data_type in ELEM_TYPES.values()]
    if halved:
        raise ModelError(
            f"{path} has 16-bit weights already, such as {halved[0]}",
            allowed="a float32 graph",
            remedy="give the graph that it was made from",
        )


def _typed_for(model: onnx.ModelProto, kind: HalfType) -> onnx.ModelProto:
    """The graph in an operator set whose layers and Q/DQ pairs take `kind`: Conv takes bfloat16 from 22 on."""
    needed = 22 if kind == "bfloat16" else 19 if is_quantized(model) else 0
    return with_opset(model, max(needed, opset_of(model)), remedy=f"export it again with opset {needed}")


def is_quantized(model: onnx.ModelProto) -> bool:
    """True if some of a graph runs on 8-bit codes between QuantizeLinear and DequantizeLinear."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def with_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give each node of `model` that has no name of its own one, in place; returns `model`."""
    taken: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{place}"
        taken.add(node.name)
    return model


def _notes(model: onnx.ModelProto, reasons: Mapping[str, Sequence[str]]) -> Iterator[str]:
    total = len(model.graph.node)
    for reason, names in reasons.items():
        if names:
            yield f"kept in float32 for their {reason}, {len(names)} of {total} nodes: {', '.join(names)}"
