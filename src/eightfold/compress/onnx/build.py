"""Builds the module of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from eightfold.compress.onnx.constants import (
    as_tensor,
    constant_tensors,
    is_host,
    is_trained,
    layer_widths,
    uses_of,
)
from eightfold.compress.onnx.fusion import biases_behind
from eightfold.compress.onnx.host import Host
from eightfold.compress.onnx.module import Choice, GraphInput, OnnxModule, Program
from eightfold.compress.onnx.operators import OPERATORS, Node, cannot_run
from eightfold.compress.onnx.operators.base import DTYPES
from eightfold.compress.onnx.step import NodeStep
from eightfold.errors import ModelError
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.operators import STANDARD_DOMAINS, kind

if TYPE_CHECKING:
    import onnx

# From 7 on, operands are broadcast as numpy does.
OPSETS = range(7, 27)


def build_module(model: onnx.ModelProto, folder: Path, held: Mapping[str, Tensor] | None = None) -> OnnxModule:
    """The module that runs `model`, whose external weights lie in `folder`. `model` is left as it is.

    Args:
        held: content of the initializers that have none in `model`.

    Raises:
        TraceError: an operator cannot run in torch.
        ModelError: an opset or a constant that cannot be read.
    """
    opset = opset_of(model)
    if opset not in OPSETS:
        raise ModelError(
            f"the graph has opset {opset}",
            allowed=f"opsets {OPSETS[0]} to {OPSETS[-1]}",
            remedy="convert it (`eightfold export MODEL.onnx --opset 17 -o BUNDLE`)",
        )
    graph = model.graph
    protos, uses = dict(constant_tensors(graph)), uses_of(graph)
    on_host = {name for name, tensor in protos.items() if is_host(tensor, uses.get(name, []))}
    widths = layer_widths(protos, uses)
    order = list(protos)
    hosts: dict[str, Host] = {}
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for number, (name, proto) in enumerate(protos.items()):
        tensor = held[name] if held and name in held else as_tensor(proto, folder)
        if name in on_host:
            hosts[name] = Host.of_constant(number, tensor)
        else:
            trained = is_trained(list(proto.dims), uses.get(name, []), widths)
            (parameters if trained else buffers)[name] = tensor
    dims = {name: tuple(proto.dims) for name, proto in protos.items() if name not in on_host}
    program = _Builder(opset, dims).program(graph)
    by_output = node_paths(graph)
    paths = [by_output[step.key] for step in program.steps]
    return OnnxModule(tuple(_inputs(graph)), program, paths, parameters, buffers, hosts, order)


def require_executable(graph: onnx.GraphProto) -> None:
    """Raise TraceError, before any weight is read, for the first node that cannot run in torch."""
    for node in graph.node:
        if kind(node) == "If":
            for inner in inner_graphs(node):
                require_executable(inner)
        elif kind(node) != "Constant":
            _require_operator(node)


def _require_operator(node: onnx.NodeProto) -> None:
    if any(True for _ in inner_graphs(node)) or kind(node) not in OPERATORS:
        domain = "" if node.domain in STANDARD_DOMAINS else f"{node.domain}."
        raise cannot_run(f"{domain}{node.op_type}", node.name or node.output[0])


class _Builder:
    def __init__(self, opset: int, dims: dict[str, tuple[int, ...]]) -> None:
        self._opset, self._dims = opset, dims

    def program(self, graph: onnx.GraphProto) -> Program:
        biases = biases_behind(graph, self._dims)
        merged = {output for _, output in biases.values()}
        steps = [
            self._step(node, biases) for node in graph.node if kind(node) != "Constant" and node.output[0] not in merged
        ]
        return Program.of(steps, [value.name for value in graph.output])

    def _step(self, node: onnx.NodeProto, biases: dict[str, tuple[str, str]]) -> NodeStep | Choice:
        name = node.name or node.output[0]
        if kind(node) == "If":
            return self._choice(node, name)
        _require_operator(node)
        reads, makes = list(node.input), list(node.output)
        if node.output[0] in biases:
            bias, output = biases[node.output[0]]
            reads, makes = [*reads[:2], bias], [output]
        made = sum(1 for output in node.output if output)
        attributes = {each.name: _value(each) for each in node.attribute}
        outputs = len(node.output) if made > 1 else 1
        return NodeStep(
            Node(node.op_type, name, self._opset, outputs, attributes),
            OPERATORS[node.op_type],
            node.output[0],
            reads,
            makes,
        )

    def _choice(self, node: onnx.NodeProto, name: str) -> Choice:
        from onnx import helper

        graphs = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        branches = {taken: self.program(graphs["then_branch" if taken else "else_branch"]) for taken in (True, False)}
        return Choice(name, node.output[0], node.input[0], list(node.output), branches)


def _value(attribute: onnx.AttributeProto) -> Any:
    from onnx import TensorProto, helper

    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, TensorProto):
        return as_tensor(value, Path())
    if isinstance(value, Sequence) and value and isinstance(value[0], bytes):
        return [each.decode() for each in value]
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _inputs(graph: onnx.GraphProto) -> Iterator[GraphInput]:
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        if value.type.WhichOneof("value") != "tensor_type" or tensor.elem_type not in DTYPES:
            raise ModelError(f"the input {value.name!r} is no tensor of numbers", allowed="tensors of numbers")
        sizes = tuple(max(0, dim.dim_value) for dim in tensor.shape.dim)
        yield GraphInput(value.name, DTYPES[tensor.elem_type], sizes)


def node_paths(graph: onnx.GraphProto) -> dict[str, str]:
    """First output of each node -> the name of its step: the node's, or that of the output.

    Torch takes no dots in names of sub-modules; colons stand for them.
    """
    taken: set[str] = set()
    paths: dict[str, str] = {}
    for node in graph.node:
        path = (node.name or node.output[0]).replace(".", ":")
        while path in taken:
            path += "'"
        taken.add(path)
        paths[node.output[0]] = path
    return paths
