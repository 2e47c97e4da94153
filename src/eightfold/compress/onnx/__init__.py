"""Pruning of ONNX files: a graph runs in torch node by node, and what changes is written back into the graph."""
