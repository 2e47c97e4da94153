"""Index of a graph: the producer and the readers of each tensor, and the edits that passes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from eightfold.arrays import Array
from eightfold.onnx_graph.names import FreeNames, all_names, captured_names

if TYPE_CHECKING:
    import onnx

T = TypeVar("T")
AttributeValue: TypeAlias = (
    "int | float | str | bytes | Sequence[int] | Sequence[float] | Sequence[str] | onnx.TensorProto | onnx.GraphProto"
)


class GraphIndex:
    """A view of a graph as it was when this was made; a pass makes one, edits, and lets it go."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.captured = set(captured_names(graph))
        self.shapes = dict(_static_shapes(graph))
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.weights.items()}
        self._names = FreeNames(all_names(graph))

    def array(self, name: str) -> Array | None:
        """The value of a constant; None for what is computed."""
        from onnx import numpy_helper

        tensor = self.weights.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor; None where there are several, or where others can see it."""
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs or name in self.captured:
            return None
        return readers[0] if list(readers[0].input).count(name) == 1 else None

    def replace(self, old: str, new: str) -> bool:
        """Let every reader of `old` read `new`. False, and nothing done, where `old` is visible outside."""
        if old in self.outputs or old in self.captured:
            return False
        for node in self.readers.get(old, []):
            node.input[:] = [new if name == old else name for name in node.input]
        self.readers.setdefault(new, []).extend(self.readers.pop(old, []))
        return True

    def free(self, name: str) -> str:
        """`name`, or the first numbered form of it that nothing in the graph has; taken from now on."""
        return self._names.free(name)

    def set_weight(self, name: str, array: Array) -> str:
        """Add a constant under a free name that begins with `name`; returns the name."""
        from onnx import numpy_helper

        free = self.free(name)
        tensor = numpy_helper.from_array(array, free)
        self.graph.initializer.append(tensor)
        self.weights[free] = tensor
        return free

    def remove(self, nodes: list[onnx.NodeProto]) -> None:
        """Remove nodes from the graph."""
        gone = {id(node) for node in nodes}
        keep(self.graph.node, lambda node: id(node) not in gone)


def keep(items: MutableSequence[T], wanted: Callable[[T], bool]) -> None:
    """Deletes the other `items`, nodes or weights of a graph, in place: a new list would copy the rest."""
    for place in reversed(range(len(items))):
        if not wanted(items[place]):
            del items[place]


@overload
def attribute(node: onnx.NodeProto, name: str, default: None) -> Any: ...
@overload
def attribute(node: onnx.NodeProto, name: str, default: T) -> T: ...
def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, of the type of its default, bytes decoded."""
    from onnx import helper

    for each in node.attribute:
        if each.name == name:
            value = helper.get_attribute_value(each)
            return value.decode() if isinstance(value, bytes) else value
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: AttributeValue) -> None:
    """Set or replace an attribute of a node."""
    from onnx import helper

    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def drop_unused(graph: onnx.GraphProto) -> int:
    """Remove nodes and constants that nothing reads. Returns the number of nodes removed."""
    read = {value.name for value in graph.output} | set(captured_names(graph))
    before = len(graph.node)
    for place in reversed(range(before)):
        node = graph.node[place]
        if read.isdisjoint(node.output):
            del graph.node[place]
        else:
            read.update(node.input)
    keep(graph.initializer, lambda tensor: tensor.name in read)
    return before - len(graph.node)


def _static_shapes(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            yield value.name, tuple(dim.dim_value for dim in tensor.shape.dim)
