"""Lowers a graph to an older opset: each node in the older version's form.

Most operators changed only in the types they take: such a node means the same in both versions, which the schemas of
both show. Options that the older version lacks may go where they have no effect. Some operators say the same thing in
another way, or are made of others (`opset_rewrites`); what is left is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eightfold.errors import ModelError
from eightfold.export.opset.opset_rewrites import DECOMPOSED, OTHERWISE_MEANT, REPHRASED, not_expressible
from eightfold.onnx_graph.graph_index import GraphIndex, attribute, drop_unused
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.operators import STANDARD_DOMAINS
from eightfold.onnx_graph.shape_inference import state_shapes

if TYPE_CHECKING:
    import onnx

# Below it, operators changed their meaning under the same signature.
LOWEST_OPSET = 13
# What an option has to be where the older version has no such option; else what it is when it is left out.
NEUTRAL = {("RoiAlign", "coordinate_transformation_mode"): "output_half_pixel"}


def lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The graph in an older opset; `model` is not changed.

    Args:
        model: a fixed-size graph.
        opset: at least 13.

    Raises:
        ModelError: a node cannot be said in that opset; the message names the first one.
    """
    from onnx import ModelProto

    if opset < LOWEST_OPSET:
        raise ModelError(f"opsets below {LOWEST_OPSET} mean other things by the same operators")
    made = ModelProto()
    made.CopyFrom(model)
    have = opset_of(made)
    _take_group_norms_apart(made, have, opset)
    _rewrite(made, lambda index, node: _lowered(index, node, have, opset))
    for entry in made.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = opset
    drop_unused(made.graph)
    del made.graph.value_info[:]
    return clean(made)


def _rewrite(model: onnx.ModelProto, words: Callable[[GraphIndex, onnx.NodeProto], list[onnx.NodeProto]]) -> None:
    """Replaces each node by others, with shapes where they can be inferred."""
    state_shapes(model)
    index = GraphIndex(model.graph)
    nodes = [new for node in model.graph.node for new in words(index, node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _take_group_norms_apart(model: onnx.ModelProto, have: int, opset: int) -> None:
    """Their parts are words of every opset. onnx infers no shapes behind the whole, so one goes after the other."""
    from onnx import NodeProto

    def words(index: GraphIndex, node: NodeProto) -> list[NodeProto]:
        known = node.op_type == "GroupNormalization" and node.input[0] in index.shapes
        return DECOMPOSED[node.op_type](index, node) if known else [node]

    for node in [node for node in model.graph.node if node.op_type == "GroupNormalization"]:
        old = _schema(node, opset)
        if old is None or old.since_version != _schema(node, have).since_version:
            _rewrite(model, words)


def _lowered(index: GraphIndex, node: onnx.NodeProto, have: int, opset: int) -> list[onnx.NodeProto]:
    if node.domain not in STANDARD_DOMAINS:
        return [node]
    if any(each.g.node or each.graphs for each in node.attribute):
        raise not_expressible(node, "holds an inner graph")
    new, old = _schema(node, have), _schema(node, opset)
    if old is not None and old.since_version == new.since_version:
        return [node]
    if node.op_type in DECOMPOSED and (old is None or node.op_type in OTHERWISE_MEANT):
        return DECOMPOSED[node.op_type](index, node)
    if node.op_type in REPHRASED:
        REPHRASED[node.op_type](index, node, opset)
    if old is None:
        raise not_expressible(node, "came with a later opset")
    _drop_what_has_no_effect(node, new, old)
    if not _fits(node, old):
        raise not_expressible(node, "uses what came with a later opset")
    return [node]


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    """onnx's definition of a node's operator in an opset; None where that has no such operator."""
    from onnx import defs

    try:
        return defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return None


def _drop_what_has_no_effect(node: onnx.NodeProto, new: Any, old: Any) -> None:
    """Removes attributes that `old` lacks and whose value is the default."""
    from onnx import helper

    for name in set(new.attributes) - set(old.attributes):
        usual = NEUTRAL.get((node.op_type, name))
        default = new.attributes[name].default_value
        default = helper.get_attribute_value(default) if default.name else None
        default = default.decode() if isinstance(default, bytes) else default
        value = attribute(node, name, default)
        if usual is not None and value != usual:
            raise not_expressible(node, f"has {name} {value!r}")
        if value == (default if usual is None else usual):
            kept = [each for each in node.attribute if each.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)


def _fits(node: onnx.NodeProto, old: Any) -> bool:
    """True if the older signature has room for everything that the node states."""
    named = all(each.name in old.attributes for each in node.attribute)
    return named and len(node.input) <= old.max_input and len(node.output) <= old.max_output
