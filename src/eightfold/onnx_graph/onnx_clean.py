"""Removes from an ONNX file stack traces, source paths and versions of the writer, and lowers its IR version so that
old runtimes on boards accept it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.onnx_graph.canonicalize import LOWEST_IR_VERSION

if TYPE_CHECKING:
    import onnx

KEPT_METADATA = ("exporter",)


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip `model` in place and return it: the same graph then has the same bytes wherever it was exported."""
    from onnx import helper

    kept = sorted((entry.key, entry.value) for entry in model.metadata_props if entry.key in KEPT_METADATA)
    del model.metadata_props[:]
    for key, value in kept:
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version, model.doc_string, model.domain = "eightfold", "", "", ""
    lowest = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.ir_version = max(lowest, LOWEST_IR_VERSION)
    _clean_graph(model.graph)
    for function in model.functions:
        function.doc_string = ""
        _clean_nodes(function.node)
    return model


def _clean_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string, graph.name = "", "network"
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    _clean_nodes(graph.node)


def _clean_nodes(nodes: object) -> None:
    for node in nodes:  # type: ignore[attr-defined]  # protobuf's container type has no public name
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            attribute.doc_string = ""
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    _clean_graph(graph)
