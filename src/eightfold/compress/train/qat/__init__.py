"""Quantization-aware training: layers whose weights and inputs are rounded in the forward pass."""
