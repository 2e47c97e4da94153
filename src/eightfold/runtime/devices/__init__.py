"""Descriptions of the machine: CPU, GPU, Jetson, clocks, temperatures and library versions."""
