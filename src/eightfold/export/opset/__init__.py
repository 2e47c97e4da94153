"""Opset by target, and conversion of a file to another opset."""
