"""ONNX graphs as data: read, index, shapes, operators, layers, folds, edits and external weights.

The only home of code about ONNX graphs that several stages share. Imports neither torch nor any stage.
"""
