"""Reading an ONNX graph for calibration: what can be calibrated, which activations to watch, which of them cannot be
told apart, and a digest that is the same for every batch size of one network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from eightfold.errors import CalibrationError
from eightfold.extras import require
from eightfold.files import PathLike
from eightfold.onnx_graph.fold_norms import is_inference_norm
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.names import captured_by, reads_of
from eightfold.onnx_graph.onnx_files import DTYPE_OF_ELEM_TYPE, load_onnx, type_name
from eightfold.onnx_graph.operators import STANDARD_DOMAINS, kind
from eightfold.onnx_graph.shape_inference import inferred_shapes

if TYPE_CHECKING:
    import onnx

MIN_OPSET = 13  # the first with per-channel QuantizeLinear

# Operators that hand values on unchanged: input and output have one range.
MOVING = frozenset(
    {"Identity", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "DepthToSpace", "SpaceToDepth", "Expand"}
)
# Operators that are fused into the one before them: what lies between the two never exists on a device.
FUSED = frozenset({"Relu", "Clip", "BatchNormalization"})
PRODUCERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization"})
QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
    | {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)
SHAPE_INPUT = {"Reshape": 1, "Expand": 1}  # operator -> which input holds a shape with the batch first


class ModelGraph(GraphIndex):
    """The index of a loaded model, and what calibration and quantization need to know of it.

    Args:
        model: an ONNX model; the index shows it as it is now.
        name: names the model in messages.
    """

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        super().__init__(model.graph)
        self.model, self.name = model, name
        for node in model.graph.node:  # a graph inside a node reads as the node does
            for each in set(captured_by(node)).difference(node.input):
                self.readers.setdefault(each, []).append(node)

    @cached_property
    def input(self) -> onnx.ValueInfoProto:
        """The one input that is not an initializer."""
        inputs = [value for value in self.model.graph.input if value.name not in self.weights]
        if len(inputs) != 1:
            raise CalibrationError(
                f"{self.name} has {len(inputs)} inputs",
                allowed="one image input",
                remedy="give those that never change a value at the export (--constant NAME=VALUE)",
            )
        value: onnx.ValueInfoProto = inputs[0]
        return value

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """-1 stands for a batch of any size; other dimensions are known."""
        shape = tuple(shape_of(self.input))
        if not shape or any(size < 1 for size in shape[1:]):
            raise CalibrationError(
                f"{self.name}: input {self.input.name!r} has the dynamic shape {list(shape)} (-1: not fixed)",
                allowed="fixed sizes, the batch excepted",
                remedy=f"fix them: eightfold export {self.name} --size HEIGHTxWIDTH -o FOLDER",
            )
        return shape

    @cached_property
    def input_dtype(self) -> str:
        """The input's element type as numpy calls it."""
        return type_name(self.input.type.tensor_type.elem_type)

    @cached_property
    def types(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Tensor name -> (onnx element type, shape with -1 for what is unknown), by shape inference."""
        graph = self.model.graph
        values = [*graph.value_info, *inferred_shapes(self.model, graph.value_info), *graph.input, *graph.output]
        return {value.name: (value.type.tensor_type.elem_type, tuple(shape_of(value))) for value in values}

    def is_float(self, name: str) -> bool:
        """True if a tensor is float32."""
        onnx = require("onnx", "read models")
        return bool(self.types.get(name, (0, ()))[0] == onnx.TensorProto.FLOAT)

    @cached_property
    def activations(self) -> tuple[str, ...]:
        """The float tensors that depend on the input, in the order in which they are made."""
        live = {self.input.name}
        found = [self.input.name] if self.is_float(self.input.name) else []
        for node in self.model.graph.node:
            if live.intersection(reads_of(node)):
                live.update(node.output)
                found += [name for name in node.output if name and self.is_float(name)]
        return tuple(found)

    @cached_property
    def observed(self) -> tuple[str, ...]:
        """One activation of each set that cannot be told apart, without those that are fused away."""
        alias = self.alias
        return tuple(name for name in self.activations if alias[name] == name and not self.is_fused_away(name))

    def is_fused_away(self, name: str) -> bool:
        """True if only a fused activation or normalization reads this tensor."""
        node, readers = self.producer.get(name), self.readers.get(name, [])
        if node is None or kind(node) not in PRODUCERS or name in self.outputs or len(readers) != 1:
            return False
        reader = readers[0]
        fused = is_inference_norm(reader) if kind(reader) == "BatchNormalization" else kind(reader) in FUSED
        return fused and reader.input[0] == name

    @cached_property
    def alias(self) -> dict[str, str]:
        """Activation -> the first activation that holds the same values."""
        first = {name: name for name in self.activations}
        for name in self.activations:
            node = self.producer.get(name)
            if node is not None and kind(node) in MOVING:
                first[name] = first.get(node.input[0], name)
        return first

    @cached_property
    def batch(self) -> int:
        """Batch of the input; -1 if it is dynamic."""
        return self.input_shape[0]

    def digest(self) -> str:
        """SHA-256 over operators, names and weights; not over batch size, file, producer or comments."""
        return _digest(self)


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """Dimensions, -1 where unknown."""
    return [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]


def read_graph(path: PathLike) -> ModelGraph:
    """Load an FP32 graph that can be calibrated and quantized.

    Raises:
        ModelError: the file is absent or not ONNX.
        CalibrationError: dynamic shapes, an opset too old, already quantized, several inputs.
    """
    graph = ModelGraph(load_onnx(path), str(path))
    opset = next((entry.version for entry in graph.model.opset_import if entry.domain in STANDARD_DOMAINS), 0)
    if opset < MIN_OPSET:
        raise CalibrationError(
            f"{path} has opset {opset}",
            allowed=f"opset {MIN_OPSET} or newer",
            remedy=f"convert it: `eightfold export {path} --opset 17 -o BUNDLE`",
        )
    quantized = [node for node in graph.model.graph.node if node.op_type in QUANTIZED]
    if quantized:
        first = f"{quantized[0].op_type} {quantized[0].name!r}"
        raise CalibrationError(
            f"{path} is already quantized ({len(quantized)} nodes, the first: {first})",
            allowed="a float graph",
            remedy="pass the graph that it was made from",
        )
    graph.input_shape  # noqa: B018 - raises for dynamic shapes
    _require_float32(graph)
    return graph


def _require_float32(graph: ModelGraph) -> None:
    """Raise CalibrationError where the input or what layers compute with has another float type."""
    if graph.input_dtype not in DTYPE_OF_ELEM_TYPE.values():
        raise CalibrationError(
            f"{graph.name}: input {graph.input.name!r} is {graph.input_dtype}",
            allowed=", ".join(DTYPE_OF_ELEM_TYPE.values()),
            remedy="export the network again with a float32 input",
        )
    made = graph.types
    _require_layers(graph.model, graph.name, lambda name: _elem_type(graph, name, made))


def require_float32_weights(model: onnx.ModelProto, name: str) -> None:
    """Raise CalibrationError where layers have weights of another float type. Other tensors are not looked at."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    _require_layers(model, name, lambda read: types.get(read, 0))


def _require_layers(model: onnx.ModelProto, name: str, type_of: Callable[[str], int]) -> None:
    from onnx import TensorProto

    others = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    for node in model.graph.node:
        if kind(node) in PRODUCERS and kind(node) != "Add":
            found = [read for read in node.input if read and type_of(read) in others]
            if found:
                raise CalibrationError(
                    f"{name} computes {node.name or node.output[0]!r} ({node.op_type}) in "
                    f"{type_name(type_of(found[0]))}",
                    allowed="a float32 graph",
                    remedy="pass the float32 graph that it was made from, or export the network again in float32",
                )


def _elem_type(graph: ModelGraph, name: str, made: dict[str, tuple[int, tuple[int, ...]]]) -> int:
    return graph.weights[name].data_type if name in graph.weights else made.get(name, (0, ()))[0]


def _digest(graph: ModelGraph) -> str:
    from onnx import numpy_helper

    seen = hashlib.sha256()
    shapes = _shape_initializers(graph.model)
    batch = graph.batch
    for node in graph.model.graph.node:
        attributes = sorted((attribute.name, _attribute(attribute)) for attribute in node.attribute)
        seen.update(json.dumps([node.domain, node.op_type, [*node.input], [*node.output], attributes]).encode())
    for name, tensor in sorted(graph.weights.items()):
        values = numpy_helper.to_array(tensor)
        if name in shapes and values.ndim == 1 and values.size and values[0] == batch:
            values = values[1:]  # the batch size
        seen.update(json.dumps([name, str(values.dtype), [*values.shape]]).encode() + values.tobytes())
    seen.update(json.dumps([graph.input.name, graph.input_shape[1:]]).encode())
    return seen.hexdigest()


def _shape_initializers(model: onnx.ModelProto) -> set[str]:
    """Names of the shapes that Reshape and the like are given: their first entry may be the batch."""
    nodes = [node for node in model.graph.node if kind(node) in SHAPE_INPUT]
    return {node.input[SHAPE_INPUT[node.op_type]] for node in nodes}


def _attribute(attribute: onnx.AttributeProto) -> str:
    """An attribute's content without its documentation; tensors and graphs by their bytes."""
    return hashlib.sha256(attribute.SerializeToString(deterministic=True)).hexdigest()
