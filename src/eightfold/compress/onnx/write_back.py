"""Writes a module's weights and widths back into the graph that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from eightfold.compress.onnx.constants import Uses, as_proto, uses_of
from eightfold.compress.onnx.host import constant_and_place
from eightfold.compress.onnx.module import Choice, OnnxModule, Program
from eightfold.compress.onnx.step import COMPUTED, OF_THE_NODE, NodeStep
from eightfold.errors import ModelError
from eightfold.onnx_graph.graph_index import GraphIndex, set_attribute
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


def write_back(model: onnx.ModelProto, module: OnnxModule, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy of `model` with the content and shapes of the module's tensors, and the sizes that its steps hold.

    Args:
        shapes: of the values that the module computes, for the graph's notes on them.

    Raises:
        ModelError: two nodes need different values of one constant.
    """
    from onnx import ModelProto

    made = ModelProto()
    made.CopyFrom(model)
    tensors: dict[str, Tensor] = {**module._parameters, **module._buffers}  # type: ignore[dict-item]  # none is None
    sizes = _sizes_of(module, uses_of(made.graph))
    _write_graph(made.graph, tensors, sizes.in_place)
    _write_copies(made.graph, module, sizes)
    _write_attributes(made.graph, {step.key: step for step in _steps(module)})
    _write_shapes(made.graph, {**shapes, **{name: tuple(tensor.shape) for name, tensor in tensors.items()}})
    return made


def _steps(module: OnnxModule) -> Iterator[NodeStep]:
    def of(program: Program) -> Iterator[NodeStep]:
        for step in program.steps:
            if isinstance(step, NodeStep):
                yield step
            elif isinstance(step, Choice):
                for inner in step.branches.values():
                    yield from of(inner)

    return of(module._program)


@dataclass
class _Sizes:
    """Sizes for constants of the graph.

    Attributes:
        in_place: constant -> place -> value.
        copies: (first output of a node, input) -> a constant, and its values by place, for this node alone.
    """

    in_place: dict[str, dict[int, int]] = field(default_factory=dict)
    copies: dict[tuple[str, int], tuple[str, dict[int, int]]] = field(default_factory=dict)


def _sizes_of(module: OnnxModule, uses: Uses) -> _Sizes:
    """Sizes that the steps hold. Where others need another value of the same constant, a node gets its own."""
    sizes, owner = _Sizes(), dict[tuple[str, int], str]()
    claims = list(_claims(module))
    for step, slot, name, wanted in claims:
        flat = module._hosts[name].tensor.reshape(-1).tolist()
        alike = sum(other == name and values == wanted for _, _, other, values in claims)
        changed = any(flat[place] != value for place, value in wanted.items())
        shared = alike < len(uses.get(name, []))
        if changed and shared and slot is not None and step.reads[slot] == name:
            sizes.copies[step.key, slot] = name, wanted
            continue
        for place, value in wanted.items():
            known = sizes.in_place.setdefault(name, {}).setdefault(place, value)
            first = owner.setdefault((name, place), step.node.name)
            if known != value:
                raise ModelError(
                    f"{first!r} and {step.node.name!r} share the constant {name!r}, and need {known} and {value}",
                    allowed="one value for all nodes that read it",
                    remedy="simplify the graph without sharing constants, or keep the groups at these nodes whole",
                )
    return sizes


def _claims(module: OnnxModule) -> Iterator[tuple[NodeStep, int | None, str, dict[int, int]]]:
    """Step, input, constant, and the values that the step needs in it."""
    for step in _steps(module):
        for attribute, origins in step.origins.items():
            held = getattr(step, attribute)
            found: dict[str, dict[int, int]] = {}
            for value, origin in zip(held if isinstance(held, list) else [held], origins, strict=True):
                if origin >= 0 and value != COMPUTED:
                    number, place = constant_and_place(origin)
                    found.setdefault(module.constants[number], {})[place] = value
            for name, wanted in found.items():
                yield step, step.operator.size_inputs.get(attribute), name, wanted


def _write_copies(graph: onnx.GraphProto, module: OnnxModule, sizes: _Sizes) -> None:
    """Constants of their own for nodes, those of equal values shared."""
    index, made = GraphIndex(graph), dict[tuple[str, tuple[tuple[int, int], ...]], str]()

    def rewire(each: onnx.GraphProto) -> None:
        for node in each.node:
            for slot in range(len(node.input)):
                copy = sizes.copies.get((node.output[0], slot)) if node.output else None
                if copy is not None:
                    name, wanted = copy
                    key = name, tuple(sorted(wanted.items()))
                    if key not in made:
                        array = module._hosts[name].tensor.clone()
                        for place, value in wanted.items():
                            array.reshape(-1)[place] = value
                        made[key] = index.set_weight(name, array.numpy())
                    node.input[slot] = made[key]
            for inner in inner_graphs(node):
                rewire(inner)

    rewire(graph)


def _write_graph(graph: onnx.GraphProto, tensors: Mapping[str, Tensor], sizes: Mapping[str, Mapping[int, int]]) -> None:
    from onnx import numpy_helper

    def content(name: str, old: onnx.TensorProto) -> onnx.TensorProto | None:
        if name in tensors:
            return as_proto(tensors[name], old.name)
        if name in sizes:
            array = numpy_helper.to_array(old).copy()
            flat = array.reshape(-1)
            for place, value in sizes[name].items():
                flat[place] = value
            if not np.array_equal(array, numpy_helper.to_array(old)):
                return numpy_helper.from_array(array, old.name)
        return None

    for tensor in graph.initializer:
        changed = content(tensor.name, tensor)
        if changed is not None:
            _replace(tensor, changed)
    for node in graph.node:
        if kind(node) == "Constant":
            _write_constant(node, content)
        for inner in inner_graphs(node):
            _write_graph(inner, tensors, sizes)


def _write_constant(node: onnx.NodeProto, content: Any) -> None:
    from onnx import helper, numpy_helper

    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        changed = content(node.output[0], value)
        if changed is not None:
            _replace(attribute.t, changed)
        return
    as_list = np.asarray(value)
    if as_list.dtype.kind not in "if":
        return
    changed = content(node.output[0], numpy_helper.from_array(as_list))
    if changed is not None:
        array = numpy_helper.to_array(changed)
        set_attribute(node, attribute.name, array.tolist() if array.ndim else array.item())


def _replace(tensor: onnx.TensorProto, content: onnx.TensorProto) -> None:
    """The content and shape of another tensor, under the old name and with the old description."""
    words = tensor.doc_string
    name = tensor.name
    tensor.CopyFrom(content)
    tensor.name = name
    if words:
        tensor.doc_string = words


def _write_attributes(graph: onnx.GraphProto, steps: Mapping[str, NodeStep]) -> None:
    for node in graph.node:
        step = steps.get(node.output[0]) if node.output else None
        for attribute, origins in step.origins.items() if step is not None else ():
            if OF_THE_NODE in origins and step is not None:
                value = getattr(step, attribute)
                name = step.operator.size_attributes[attribute]
                before = next(each for each in node.attribute if each.name == name)
                if (list(before.ints) if isinstance(value, list) else before.i) != value:
                    set_attribute(node, name, value)
        for inner in inner_graphs(node):
            _write_attributes(inner, steps)


def _write_shapes(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Sizes that the graph states for values inside it, and for weights that it lists among its inputs."""
    weights = {tensor.name for tensor in graph.initializer}
    for value in (*(each for each in graph.input if each.name in weights), *graph.value_info):
        dims, shape = value.type.tensor_type.shape.dim, shapes.get(value.name, ())
        if len(dims) == len(shape):
            for dim, size in zip(dims, shape, strict=True):
                if dim.HasField("dim_value") and dim.dim_value != size:
                    dim.dim_value = size
    for node in graph.node:
        for inner in inner_graphs(node):
            _write_shapes(inner, shapes)
