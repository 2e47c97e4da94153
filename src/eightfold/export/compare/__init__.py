"""Comparison of two artifacts of any kind: outputs, detections, layers, bundles."""
