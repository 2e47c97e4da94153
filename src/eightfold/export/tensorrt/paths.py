"""Checks the output location of an engine before its build, which takes minutes."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import UsageError
from eightfold.export.tensorrt.layers import layers_path
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import sidecar_path
from eightfold.files import PathLike, require_output
from eightfold.onnx_graph.onnx_files import external_files


def require_places(output: PathLike, onnx_path: PathLike, options: BuildOptions) -> None:
    """Raises UsageError if the engine's files cannot be written, or would replace an input."""
    graph = Path(onnx_path)
    if not graph.is_file():
        raise UsageError(f"there is no file {str(graph)!r}", allowed="an ONNX file of fixed sizes")
    read = [graph, *(graph.parent / name for name in external_files(graph)), options.calibration_cache]
    for written in (output, sidecar_path(output), layers_path(output), options.timing_cache):
        require_output(written, reads=read)
