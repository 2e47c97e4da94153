"""Where an engine goes, looked at before the minutes that its build takes."""

from __future__ import annotations

import os
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.export.onnx_files import external_files
from eightfold.export.tensorrt.layers import layers_path
from eightfold.export.tensorrt.record import sidecar_path
from eightfold.files import PathLike


def require_place(output: PathLike, onnx_path: PathLike) -> None:
    """Raises UsageError where an engine and what lies beside it cannot be written, or would take the graph's place."""
    graph = Path(onnx_path)
    if not graph.is_file():
        raise UsageError(f"there is no file {str(graph)!r}", allowed="an ONNX file of fixed sizes")
    read = [graph, *(graph.parent / name for name in external_files(graph))]
    for written in (Path(output), sidecar_path(output), layers_path(output)):
        if any(written.exists() and each.exists() and written.samefile(each) for each in read):
            raise UsageError(f"{written} would be written over by the engine", allowed="another name than the graph's")
        if written.exists() and not written.is_file():
            raise UsageError(f"cannot write {written}: it is a directory or a device", allowed="the name of a file")
    require_writable(Path(output))


def require_writable(path: Path) -> None:
    """Raises UsageError where the folder of a file to be cannot be written to, or cannot be made."""
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: {folder} is not a folder that you may write to", allowed="one that is")
