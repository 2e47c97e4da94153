"""Tells the inputs and outputs of a node that may be in 16 bits, from ONNX's definition of its operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eightfold.onnx_graph.graph_index import attribute
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx

# Operators whose float type, or that of what is inside, is fixed elsewhere in the graph or by their bits.
UNTYPED_OPS = frozenset(
    {
        "BitCast",
        "BlackmanWindow",
        "Constant",
        "ConstantOfShape",
        "EyeLike",
        "HammingWindow",
        "HannWindow",
        "NonMaxSuppression",
        "OptionalGetElement",
        "RandomNormal",
        "RandomUniform",
        "Range",
    }
)
# Options that state the type of what a node makes.
STATED_TYPES = ("dtype", "output_dtype")

# Whether the input or output in that place may have another float type.
Taken = Callable[[int], bool]


def retypable(node: onnx.NodeProto, opset: int, type_name: str) -> tuple[Taken, Taken]:
    """For each input, and each output, of a node: True if it may have another float type than float32.

    Args:
        opset: of the graph.
        type_name: as ONNX writes it: "tensor(float16)".
    """
    schema = None if _is_untyped(node) else _schema(node, opset)
    if schema is None or any(_is_container(each) for each in (*schema.inputs, *schema.outputs)):
        return _never, _never
    return _taken(schema.inputs, type_name), _taken(schema.outputs, type_name)


def _is_untyped(node: onnx.NodeProto) -> bool:
    stated = any(attribute(node, name, 0) for name in STATED_TYPES)
    return kind(node) in ("", *UNTYPED_OPS) or stated or any(inner_graphs(node))


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    from onnx import defs

    try:
        return defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return None


def _is_container(formal: Any) -> bool:
    """True if it is never a tensor: elements of a sequence keep their type."""
    return not any(name.startswith(("tensor", "sparse_tensor")) for name in formal.types)


def _taken(formals: Sequence[Any], type_name: str) -> Taken:
    """The last formal input or output may stand for any number of them."""
    known = [type_name in formal.types for formal in formals]
    return lambda place: bool(known) and known[min(place, len(known) - 1)]


def _never(place: int) -> bool:
    return False
