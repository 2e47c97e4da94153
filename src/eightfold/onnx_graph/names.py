"""Names of a graph's tensors and nodes: those that exist, in inner graphs as well, and new ones that clash with none.

Every pass that makes tensors asks here. ONNX wants each name once in a graph and all graphs inside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


class FreeNames:
    """Gives names that are not taken, each of them once.

    Args:
        taken: `all_names` of the outermost graph, or `node_names`; read when the first new one is asked for.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._known = taken
        self._taken: set[str] | None = None

    def free(self, wanted: str) -> str:
        """`wanted`, or the first numbered form of it that is not taken; taken from now on."""
        if self._taken is None:
            self._taken = set(self._known)
        free = next(each for each in _numbered(wanted) if each not in self._taken)
        self._taken.add(free)
        return free


def all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of tensors and nodes, of inner graphs as well: none of them must come to mean another thing."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info))
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for inner in inner_graphs(node):
            yield from all_names(inner)


def node_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of nodes, which may be those of tensors."""
    for node in graph.node:
        yield node.name
        for inner in inner_graphs(node):
            yield from node_names(inner)


def reads_of(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads: its inputs, and what graphs inside it read; some of these may be their own."""
    yield from node.input
    yield from captured_by(node)


def captured_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the graphs inside a node read."""
    for inner in inner_graphs(node):
        yield from read_inside(inner)


def captured_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that inner graphs (of If, Loop, Scan) read; some may be their own, which does no harm."""
    for node in graph.node:
        yield from captured_by(node)


def read_inside(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that the nodes of an inner graph read, and its outputs: they may be tensors of the graph around it."""
    for node in graph.node:
        yield from reads_of(node)
    yield from (value.name for value in graph.output)


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of If, Loop and Scan."""
    for each in node.attribute:
        if each.HasField("g"):
            yield each.g
        yield from each.graphs


def fault_of_names(graph: onnx.GraphProto) -> tuple[str, str]:
    """The first name of the outermost graph that means no tensor or several, and the remedy; "" where all is well.

    A weight may be an input as well: it is the input's value where none is given.
    """
    made: dict[str, str] = {}
    for kind, name in _definitions(graph):
        if name in made and (kind, made[name]) != ("initializer", "input"):
            return f"{kind} {name!r} is there twice", "export it again"
        made[name] = kind
    listed: set[str] = set()
    for value in graph.output:
        if value.name not in made:
            return f"nothing makes its output {value.name!r}", "export it again"
        if value.name in listed:
            return f"output {value.name!r} is listed twice", "put an Identity node with a name of its own behind one"
        listed.add(value.name)
    return "", ""


def _definitions(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """(kind, name) of each tensor of the outermost graph."""
    yield from (("input", value.name) for value in graph.input)
    yield from (("initializer", tensor.name) for tensor in graph.initializer)
    yield from (("tensor", name) for node in graph.node for name in node.output if name)


def rename_reads(nodes: Iterable[onnx.NodeProto], new_names: dict[str, str]) -> None:
    """Let nodes read other tensors, old name -> new one, in place. Inner graphs are left alone."""
    for node in nodes:
        if not new_names.keys().isdisjoint(node.input):
            node.input[:] = [new_names.get(name, name) for name in node.input]


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
