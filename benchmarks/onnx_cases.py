"""The ONNX project's backend tests, and other forms of each: the same network as other exporters might write it."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper
from onnx.backend.test import loader

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
# The newest that onnxruntime reads; tests say the latest, whatever they need.
NEWEST_OPSET, NEWEST_IR_VERSION = 26, 13
STANDARD = ("", "ai.onnx")
# Names that steps like to give.
LIKED = ("{}_shape", "{}_sizes", "{}_half", "{}_float", "{}_exact", "{}_before_cast", "{}_constant")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, inputs by name and expected outputs in order."""

    name: str
    model: ModelProto
    feeds: dict[str, Any]
    expected: list[Any]
    rtol: float
    atol: float


def backend_cases() -> Iterator[Case]:
    """Every model with its first set of data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, on overflows that some tests are about
        for kind in KINDS:
            for test in loader.load_model_tests(kind=kind):
                model = test.model or onnx.load(str(Path(test.model_dir) / "model.onnx"))
                inputs, expected = test.data_sets[0] if test.data_sets else _stored(Path(test.model_dir), model)
                _stamp(model)
                feeds = {value.name: _array(each) for value, each in zip(model.graph.input, inputs, strict=False)}
                given = {name: each for name, each in feeds.items() if each is not None}
                outputs = [_array(each) for each in expected]
                yield Case(test.name, model, given, outputs, test.rtol, max(test.atol, 1e-7))


def _stamp(model: ModelProto) -> None:
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = min(entry.version, NEWEST_OPSET)
    model.ir_version = min(model.ir_version, NEWEST_IR_VERSION)


def _stored(folder: Path, model: ModelProto) -> tuple[list[Any], list[Any]]:
    data = folder / "test_data_set_0"
    return tuple(  # type: ignore[return-value]
        [
            _read(data / f"{stem}_{place}.pb", value)
            for place, value in enumerate(values)
            if _is_there(data, stem, place)
        ]
        for stem, values in (("input", model.graph.input), ("output", model.graph.output))
    )


def _is_there(data: Path, stem: str, place: int) -> bool:
    return (data / f"{stem}_{place}.pb").exists()


def _read(file: Path, value: ValueInfoProto) -> Any:
    kinds = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    return kinds.get(value.type.WhichOneof("value"), onnx.TensorProto).FromString(file.read_bytes())


def _array(value: Any) -> Any:
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


# Forms. Each returns None where a model has none.


def as_it_is(case: Case) -> Case | None:
    return case


def weights(case: Case) -> Case | None:
    """All inputs but the first are weights."""
    return _with_weights(case, listed=False)


def listed_weights(case: Case) -> Case | None:
    """And inputs as well, as before IR version 4."""
    return _with_weights(case, listed=True)


def constants(case: Case) -> Case | None:
    """And made by Constant nodes."""
    made = _with_weights(case, listed=False)
    if made is None:
        return None
    known = {tensor.name for tensor in case.model.graph.initializer}
    fresh = [tensor for tensor in made.model.graph.initializer if tensor.name not in known]
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in fresh]
    return _with_nodes(made, [*nodes, *made.model.graph.node], initializer=case.model.graph.initializer)


def taken_names(case: Case) -> Case | None:
    """Weights under names that steps like to give."""
    made = weights(case)
    if made is None or _has_inner_graphs(case.model.graph):
        return None
    known = {tensor.name for tensor in case.model.graph.initializer}
    graph = made.model.graph
    bases = [graph.output[0].name, *(value.name for value in graph.input)]
    free = [form.format(base) for base in bases for form in LIKED]
    fresh = [tensor for tensor in graph.initializer if tensor.name not in known]
    renamed = dict(zip((tensor.name for tensor in fresh), free, strict=False))
    for tensor in fresh:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    return made


def twice(case: Case) -> Case | None:
    """Every node twice, behind Identity."""
    outer = _outer_names(case.model.graph)
    if _has_inner_graphs(case.model.graph) or any(value.name in outer for value in case.model.graph.output):
        return None
    nodes, outputs = [], []
    for prefix in ("a/", "b/"):
        nodes += [_prefixed(node, prefix, outer) for node in case.model.graph.node]
        for value in case.model.graph.output:
            nodes.append(helper.make_node("Identity", [prefix + value.name], [f"{prefix}{value.name}/out"]))
            outputs.append(_renamed(value, f"{prefix}{value.name}/out"))
    made = _with_nodes(case, nodes)
    del made.model.graph.output[:]
    made.model.graph.output.extend(outputs)
    return dataclasses.replace(made, expected=case.expected * 2)


def in_a_branch(case: Case) -> Case | None:
    """The whole in both branches of an If."""
    graph, outer = case.model.graph, _outer_names(case.model.graph)
    if _has_inner_graphs(graph) or any(value.name in outer for value in graph.output):
        return None

    def branch(prefix: str) -> GraphProto:
        nodes = [_prefixed(node, prefix, outer) for node in graph.node]
        return helper.make_graph(nodes, "branch", [], [_renamed(each, prefix + each.name) for each in graph.output])

    names = [value.name for value in graph.output]
    node = helper.make_node("If", ["choice"], names, then_branch=branch("a/"), else_branch=branch("b/"))
    return _with_nodes(
        case, [node], initializer=[*graph.initializer, numpy_helper.from_array(np.array(True), "choice")]
    )


def in_a_function(case: Case) -> Case | None:
    """The whole as a function, which has the name of its first operator."""
    graph = case.model.graph
    if _has_inner_graphs(graph) or case.model.functions or graph.initializer:
        return None
    inputs, outputs = [value.name for value in graph.input], [value.name for value in graph.output]
    if set(inputs) & set(outputs):
        return None
    name, nodes = graph.node[0].op_type, list(graph.node)
    made = _with_nodes(case, [helper.make_node(name, inputs, outputs, domain="local")])
    function = helper.make_function("local", name, inputs, outputs, nodes, list(case.model.opset_import))
    made.model.functions.append(function)
    made.model.opset_import.append(helper.make_opsetid("local", 1))
    made.model.ir_version = max(made.model.ir_version, 8)
    return made


def dynamic(case: Case) -> Case | None:
    """Every axis of any length."""
    made = _with_nodes(case, case.model.graph.node)
    for value in (*made.model.graph.input, *made.model.graph.output):
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            dim.dim_param = f"{value.name}_{place}"
    return made


def inner_outputs(case: Case) -> Case | None:
    """A copy of the first input is visible."""
    graph = case.model.graph
    if _has_inner_graphs(graph) or not graph.input or graph.input[0].type.WhichOneof("value") != "tensor_type":
        return None
    first, shown = graph.input[0].name, f"{graph.input[0].name}/shown"
    if first not in case.feeds or any(value.name == first for value in graph.output):
        return None
    made = _with_nodes(case, [helper.make_node("Identity", [first], [shown]), *graph.node])
    for node in made.model.graph.node[1:]:
        node.input[:] = [shown if name == first else name for name in node.input]
    made.model.graph.output.append(_renamed(graph.input[0], shown))
    return dataclasses.replace(made, expected=[*case.expected, case.feeds[first]])


Form = Callable[[Case], "Case | None"]
FORMS: tuple[Form, ...] = (
    as_it_is,
    weights,
    listed_weights,
    constants,
    taken_names,
    twice,
    in_a_branch,
    in_a_function,
    dynamic,
    inner_outputs,
)


def _with_weights(case: Case, *, listed: bool) -> Case | None:
    made = _with_nodes(case, case.model.graph.node)
    graph = made.model.graph
    known = {tensor.name for tensor in graph.initializer}
    chosen = [value.name for value in graph.input if isinstance(case.feeds.get(value.name), np.ndarray)][1:]
    chosen = [name for name in chosen if name not in known]
    if not chosen:
        return None
    graph.initializer.extend(numpy_helper.from_array(case.feeds[name], name) for name in chosen)
    if not listed:
        kept = [copy.deepcopy(value) for value in graph.input if value.name not in chosen]
        del graph.input[:]
        graph.input.extend(kept)
    return dataclasses.replace(made, feeds={name: each for name, each in case.feeds.items() if name not in chosen})


def _with_nodes(case: Case, nodes: Sequence[NodeProto], initializer: Sequence[Any] | None = None) -> Case:
    model = ModelProto()
    model.CopyFrom(case.model)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    if initializer is not None:
        del model.graph.initializer[:]
        model.graph.initializer.extend(initializer)
    return dataclasses.replace(case, model=model)


def _outer_names(graph: GraphProto) -> set[str]:
    return {"", *(each.name for each in (*graph.input, *graph.initializer))}


def _has_inner_graphs(graph: GraphProto) -> bool:
    return any(each.HasField("g") or each.graphs for node in graph.node for each in node.attribute)


def _prefixed(node: NodeProto, prefix: str, outer: set[str]) -> NodeProto:
    made = copy.deepcopy(node)
    made.input[:] = [name if name in outer else prefix + name for name in node.input]
    made.output[:] = [name and prefix + name for name in node.output]
    return made


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    made = copy.deepcopy(value)
    made.name = name
    return made
