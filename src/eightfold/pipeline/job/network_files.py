"""Files of a run directory that hold its networks."""

from __future__ import annotations

BASELINE = "baseline/weights.safetensors"
BASELINE_GRAPH = "baseline/model.onnx"  # of a network that is an ONNX file
PRUNED = "pruned"
PRUNED_GRAPH = "pruned/model.onnx"
