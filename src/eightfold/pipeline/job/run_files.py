"""Folders and files of a run directory."""

from __future__ import annotations

BASELINE = "baseline/weights.safetensors"
BASELINE_GRAPH = "baseline/model.onnx"  # of a network that is an ONNX file
PRUNED = "pruned"
PRUNED_GRAPH = "pruned/model.onnx"
DATA = "data"
BASELINE_FACTS = "baseline/facts.json"
ANSWERS = "answers.npz"  # of the original on the test images, where these have no labels
PLAN = "plan/plan.json"
WIDTHS = "plan/widths.json"
LATENCY_PLAN = "plan/latency.json"
RECOVERY_LOG = "recover.csv"
PRUNED_FACTS = "pruned.json"
RANGES = "ranges.json"
EQUALIZED = "onnx/equalized.json"
METRICS = "metrics.json"
EVIDENCE = "evidence.json"  # the leading metric, image by image
ENGINES = "engines"
TIMING_CACHE = "timing.cache"
DECODED = "decoded"  # a family of graphs
LATENCY = "latency.json"
REPORT = "report.html"
BUNDLE = "bundle"


def facts_of(what: str) -> str:
    """Path of the recorded steps of a family of graphs, by artifact id."""
    return f"onnx/{what.replace(':', '-')}.json"


def search_of(target: str) -> str:
    """Path of the plot of the trade-off that `quantize.max_drop` made; the table has the same name and .txt."""
    return f"onnx/search-{target.replace(':', '-')}.svg"
