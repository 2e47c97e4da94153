"""Pad, then Conv: a convolution can pad by itself. Right where the padding is with zeros, on spatial axes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eightfold.onnx_graph.graph_index import GraphIndex, attribute, set_attribute
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


def pad_into_conv(graph: onnx.GraphProto) -> int:
    """Move zero padding into the convolution behind it. Returns the number of Pad nodes removed."""
    index = GraphIndex(graph)
    gone = []
    for pad in graph.node:
        if kind(pad) != "Pad":
            continue
        conv = index.only_reader(pad.output[0])
        amounts = _zero_padding(index, pad)
        if conv is None or kind(conv) != "Conv" or conv.input[0] != pad.output[0] or amounts is None:
            continue
        if attribute(conv, "auto_pad", "NOTSET") != "NOTSET":
            continue
        own = attribute(conv, "pads", [0] * len(amounts))
        set_attribute(conv, "pads", [a + b for a, b in zip(own, amounts, strict=True)])
        conv.input[0] = pad.input[0]
        gone.append(pad)
    index.remove(gone)
    return len(gone)


def _zero_padding(index: GraphIndex, pad: Any) -> list[int] | None:
    """Amounts for the spatial axes (begins, then ends), or None where a convolution cannot do the same."""
    if attribute(pad, "mode", "constant") != "constant" or len(pad.input) < 2 or (len(pad.input) > 3 and pad.input[3]):
        return None
    amounts = index.array(pad.input[1])
    value = index.array(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else None
    has_value = len(pad.input) > 2 and bool(pad.input[2])
    if amounts is None or (has_value and (value is None or value.item() != 0)):
        return None
    half = len(amounts) // 2
    begins, ends = [int(a) for a in amounts[:half]], [int(a) for a in amounts[half:]]
    if any((*begins[:2], *ends[:2])) or min((*begins, *ends)) < 0:
        return None
    return [*begins[2:], *ends[2:]]
