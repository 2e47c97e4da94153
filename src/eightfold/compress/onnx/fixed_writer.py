"""Writes a graph at its present widths with fixed sizes, to be timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from eightfold.compress.onnx.graph_file import OnnxGraph
from eightfold.compress.onnx.module import OnnxModule
from eightfold.errors import UsageError
from eightfold.export.fixed_size.fix_shapes import freeze_onnx


def writer_of(graph: OnnxGraph, size: tuple[int, int] | None) -> Callable[[nn.Module, Path, int], Path]:
    """A function that writes the module of `graph` to a file of a batch size."""

    def write(module: nn.Module, path: Path, batch: int) -> Path:
        assert isinstance(module, OnnxModule)
        fixed = module.inputs[0].shape[0] if module.inputs and module.inputs[0].shape else batch
        if fixed and fixed != batch:
            raise UsageError(
                f"a latency budget at batch {batch} for {graph.path}, whose batch is {fixed}", allowed=f"batch {fixed}"
            )
        graph.save(path, module)
        freeze_onnx(path, path, batch=batch, image_size=size)
        return path

    return write
