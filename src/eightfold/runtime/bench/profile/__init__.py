"""Latency of single layers over their widths: shapes, tables, micro-graphs, the grid to measure, and the cache."""
