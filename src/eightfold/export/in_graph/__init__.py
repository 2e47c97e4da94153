"""Preprocessing and box decoding inside the ONNX graph."""
