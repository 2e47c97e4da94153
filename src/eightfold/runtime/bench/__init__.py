"""Latency measurement: timing, interleaved candidates, the latency table, peak memory, remote devices."""
