"""Writes a module's weights and widths back into the graph that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from eightfold.compress.onnx.constants import as_proto
from eightfold.compress.onnx.host import constant_and_place
from eightfold.compress.onnx.module import Choice, OnnxModule, Program
from eightfold.compress.onnx.step import COMPUTED, OF_THE_NODE, Step
from eightfold.errors import ModelError
from eightfold.onnx_graph.graph_index import set_attribute
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
    sizes = dict(_changed_sizes(module))
    _write_graph(made.graph, tensors, sizes)
    _write_attributes(made.graph, {step.key: step for step in _steps(module)})
    _write_shapes(made.graph, {**shapes, **{name: tuple(tensor.shape) for name, tensor in tensors.items()}})
    return made


def _steps(module: OnnxModule) -> Iterator[Step]:
    def of(program: Program) -> Iterator[Step]:
        for step in program.steps:
            if isinstance(step, Step):
                yield step
            elif isinstance(step, Choice):
                for inner in step.branches.values():
                    yield from of(inner)

    return of(module._program)


def _changed_sizes(module: OnnxModule) -> Iterator[tuple[str, dict[int, int]]]:
    """Constant -> place -> value, for what is held in constants of the graph."""
    found: dict[str, dict[int, int]] = {}
    asked: dict[tuple[str, int], str] = {}
    for step in _steps(module):
        for attribute, origins in step.origins.items():
            held = getattr(step, attribute)
            for value, origin in zip(held if isinstance(held, list) else [held], origins, strict=True):
                if origin < 0 or value == COMPUTED:
                    continue
                number, place = constant_and_place(origin)
                name = module.constants[number]
                known = found.setdefault(name, {}).setdefault(place, value)
                if known != value:
                    raise ModelError(
                        f"{asked[name, place]!r} and {step.node.name!r} share the constant {name!r}, "
                        f"and need {known} and {value}",
                        allowed="one value for all nodes that read it",
                        remedy="simplify the graph without sharing constants, or keep the groups at these nodes whole",
                    )
                asked[name, place] = step.node.name
    yield from found.items()


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


def _write_attributes(graph: onnx.GraphProto, steps: Mapping[str, Step]) -> None:
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
