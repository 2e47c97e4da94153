"""Kinds of ONNX nodes: names of operators have the standard's meaning in its own domain only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

STANDARD_DOMAINS = ("", "ai.onnx")


def kind(node: onnx.NodeProto) -> str:
    """The standard operator that a node is; "" for operators of others, which may mean anything by the same name."""
    return str(node.op_type) if node.domain in STANDARD_DOMAINS else ""
