"""A float16 graph for builders that are strongly typed: what the graph says is what runs.

Weights and activations become float16, except where range or precision demands float32: sums over many elements,
exponentials and logarithms, the inner sums of normalizations, and constants that float16 cannot hold. Inputs and
outputs of the network keep their types, so that a runtime need not care.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eightfold.export.half_emulation import verify_half
from eightfold.export.onnx_clean import clean
from eightfold.export.onnx_files import load_onnx, save_onnx
from eightfold.export.passes.graph_index import captured_names
from eightfold.export.shapes import state_shapes
from eightfold.export.verify import Array, Arrays, Tolerance, run_onnx, with_outputs
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step

if TYPE_CHECKING:
    import onnx

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's element types
LARGEST_HALF = 65504.0
TOLERANCE = Tolerance(cosine=0.9999)

# Operators whose result suffers in float16 whatever the weights are: many terms, or a range of many orders.
FLOAT32_OPS = frozenset(
    {
        "CumSum",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Pow",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softplus",
    }
)
# Operators that have no float16 form, or whose float type is fixed elsewhere in the graph.
UNTYPED_OPS = frozenset(
    {
        "ConstantOfShape",
        "DequantizeLinear",
        "EyeLike",
        "If",
        "Loop",
        "NonMaxSuppression",
        "QuantizeLinear",
        "RandomNormal",
        "RandomUniform",
        "Range",
        "Scan",
    }
)
# (operator, input index) of inputs that stay float32 in a float16 node.
FLOAT32_INPUTS = frozenset({("Resize", 1), ("Resize", 2), ("Upsample", 1)})


def half_onnx(
    path: PathLike, output: PathLike, *, keep_float: Iterable[str] = (), inputs: Arrays | None = None
) -> Path:
    """Write the float16 form of a float32 ONNX file.

    Args:
        path: a fixed-size ONNX file.
        output: where the result goes.
        keep_float: names of further nodes that stay in float32.
        inputs: real inputs by name. Nodes that take or make values beyond half of float16's range on them stay in
            float32 as well, and the result is compared with the original on them.

    Raises:
        VerificationError: on `inputs`, the float16 graph overflows or its cosine is below 0.9999; nothing is written.
    """
    return save_onnx(checked_half(path, keep_float=keep_float, inputs=inputs)[0], output)


def checked_half(
    path: PathLike, *, keep_float: Iterable[str] = (), inputs: Arrays | None = None
) -> tuple[onnx.ModelProto, tuple[Step, ...]]:
    """The same in memory, with what the comparison found; no steps without `inputs`."""
    model = load_onnx(path)
    if inputs is None:
        return half_graph(model, keep_float=keep_float), ()
    large = nodes_out_of_range(model, inputs)
    made = half_graph(model, keep_float=frozenset(keep_float) | frozenset(large))
    step = verify_half(path, made, inputs, tolerance=TOLERANCE)
    notes = (f"kept in float32 for their range: {', '.join(large)}",) if large else ()
    return made, (step.model_copy(update={"notes": notes}),)


def nodes_out_of_range(model: onnx.ModelProto, inputs: Arrays, *, limit: float = LARGEST_HALF / 2) -> list[str]:
    """Names of nodes that take or make float values beyond `limit` in magnitude on `inputs`."""
    from onnx import ModelProto

    names = [name for node in model.graph.node for name in node.output if name]
    probe = ModelProto()
    probe.CopyFrom(model)
    values = dict(inputs) | run_onnx(with_outputs(probe, names), inputs, optimize=False)
    large = {name for name, array in values.items() if _beyond(array, limit)}
    return [node.name for node in model.graph.node if large & {*node.input, *node.output}]


def _beyond(array: Array, limit: float) -> bool:
    return array.dtype.kind == "f" and array.size > 0 and not float(np.max(np.abs(array))) <= limit


def half_graph(model: onnx.ModelProto, *, keep_float: Iterable[str] = ()) -> onnx.ModelProto:
    """The same in memory; `model` is not changed."""
    from onnx import ModelProto

    typed = ModelProto()
    typed.CopyFrom(model)
    state_shapes(typed)
    _constants_become_weights(typed.graph)
    _Halving(typed.graph, frozenset(keep_float)).run()
    del typed.graph.value_info[:]
    return clean(typed)


@dataclasses.dataclass
class _Halving:
    """One pass over the nodes in order; `have` is the type that each float tensor has so far."""

    graph: onnx.GraphProto
    keep_float: frozenset[str]

    def run(self) -> None:
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.floats = set(_float_values(self.graph))
        self.have = {value.name: FLOAT for value in self.graph.input}
        self.captured = set(captured_names(self.graph))
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()
        for node in list(self.graph.node):
            self._convert(node)
        self._restore_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self._drop_unused_weights()

    def _convert(self, node: onnx.NodeProto) -> None:
        want = FLOAT if self._stays_float(node) else FLOAT16
        for index, name in enumerate(node.input):
            if name in self.floats:
                node.input[index] = self._as(name, FLOAT if (node.op_type, index) in FLOAT32_INPUTS else want)
        for name in node.output:
            if name in self.floats:
                self.have[name] = want
        if node.op_type == "Cast" and node.output[0] in self.floats:
            _set_cast_target(node, want)
        self.nodes.append(node)

    def _stays_float(self, node: onnx.NodeProto) -> bool:
        return (
            node.op_type in FLOAT32_OPS
            or node.op_type in UNTYPED_OPS
            or node.domain not in ("", "ai.onnx")
            or node.name in self.keep_float
            or any(name in self.captured for name in node.output)
            or any(name in self.weights and not _fits_half(self.weights[name]) for name in node.input)
        )

    def _as(self, name: str, want: int) -> str:
        """The name under which tensor `name` has type `want`, made on first use."""
        if self.have.get(name, FLOAT) == want:
            return name
        other = f"{name}_half" if want == FLOAT16 else f"{name}_float"
        if other not in self.made:
            self.made.add(other)
            if name in self.weights:
                self.graph.initializer.append(_half_weight(self.weights[name], other))
            else:
                self.nodes.append(_cast(name, other, want))
        return other

    def _restore_outputs(self) -> None:
        for value in self.graph.output:
            if value.name in self.floats and self.have.get(value.name) == FLOAT16:
                inner = f"{value.name}_before_cast"
                for node in self.nodes:
                    _rename(node.input, value.name, inner)
                    _rename(node.output, value.name, inner)
                self.nodes.append(_cast(inner, value.name, FLOAT))

    def _drop_unused_weights(self) -> None:
        used = {name for node in self.nodes for name in node.input} | self.captured
        used |= {value.name for value in self.graph.output}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _constants_become_weights(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in constants:
        tensor = numpy_helper.from_array(numpy_helper.to_array(node.attribute[0].t), node.output[0])
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _float_values(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == FLOAT:
            yield value.name
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT:
            yield tensor.name


def _fits_half(tensor: onnx.TensorProto) -> bool:
    """False where a constant overflows float16, or a lone one (an epsilon) vanishes in it."""
    from onnx import numpy_helper

    if tensor.data_type != FLOAT:
        return True
    array = numpy_helper.to_array(tensor)
    if array.size and float(np.max(np.abs(array))) > LARGEST_HALF:
        return False
    return not (array.size == 1 and array.item() != 0 and np.float16(array.item()) == 0)


def _half_weight(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    array: NDArray[np.float16] = numpy_helper.to_array(tensor).astype(np.float16)
    return numpy_helper.from_array(array, name)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=to)


def _set_cast_target(node: onnx.NodeProto, to: int) -> None:
    next(attribute for attribute in node.attribute if attribute.name == "to").i = to


def _rename(names: object, old: str, new: str) -> None:
    for index, name in enumerate(names):  # type: ignore[arg-type, var-annotated]  # protobuf's list has no public type
        if name == old:
            names[index] = new  # type: ignore[index]  # as above
