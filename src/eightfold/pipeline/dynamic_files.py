"""ONNX files with dynamic axes, which commands fix before they run them."""

from __future__ import annotations

from pathlib import Path

from eightfold.extras import installed
from eightfold.runtime.bundle.sizes import Size


def is_dynamic(path: Path) -> bool:
    """True if an input of an ONNX file has a dynamic axis. Without the package onnx every file counts as fixed."""
    if path.suffix != ".onnx" or not path.is_file() or not installed("onnx"):
        return False
    from eightfold.export.fixed_size.file_inputs import FileInputs

    return not all(all(each.dims) for each in FileInputs.of(path).free)


def fixed_file(path: Path, folder: Path, size: Size | None) -> Path:
    """The file itself where nothing in it is dynamic; else a copy in the folder, for one image of a size in pixels.

    Args:
        size: (height, width); None for the size that the file records, or 224x224.

    Raises:
        UsageError: the file is fixed at another size.
    """
    if not is_dynamic(path) and size is None:
        return path
    from eightfold.export.fixed_size.fix_shapes import freeze_onnx
    from eightfold.zoo.sources.base import SourceOptions
    from eightfold.zoo.sources.registry import load_source

    loaded = load_source(str(path), SourceOptions(size=size))
    if not is_dynamic(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    return freeze_onnx(path, folder / path.name, image_size=loaded.size)
