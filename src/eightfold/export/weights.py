"""Weights that several ONNX files have in common, stored once: in one file of raw bytes that all of them refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.export.onnx_files import load_onnx
from eightfold.files import PathLike, atomic_path, sha256_of_bytes, write_bytes

if TYPE_CHECKING:
    import onnx

# Smaller tensors stay in the graph, where shape inference and parsers can see them.
SMALLEST_SHARED_BYTES = 1024
# Readers map the file; a page is what they can map.
ALIGNMENT_BYTES = 4096


def share_weights(paths: Sequence[PathLike], data: str) -> Path:
    """Rewrite ONNX files of one folder in place so that equal weights are stored once, in `data` beside them.

    Args:
        paths: ONNX files in one folder, e.g. the same network at several batches.
        data: name of the file that will hold the weights.

    Returns:
        The path of that file. The same graphs give the same bytes.
    """
    files = [Path(path) for path in paths]
    models = [load_onnx(file) for file in files]
    blob = files[0].with_name(data)
    with atomic_path(blob) as temporary, temporary.open("wb") as stream:
        offsets: dict[str, int] = {}
        for model in models:
            for tensor in model.graph.initializer:
                raw = _raw_bytes(tensor)
                if len(raw) < SMALLEST_SHARED_BYTES:
                    continue
                digest = sha256_of_bytes(raw)
                if digest not in offsets:
                    stream.write(bytes(-stream.tell() % ALIGNMENT_BYTES))
                    offsets[digest] = stream.tell()
                    stream.write(raw)
                _refer(tensor, data, offsets[digest], len(raw))
    for file, model in zip(files, models, strict=True):
        write_bytes(file, model.SerializeToString(deterministic=True))
    return blob


def _raw_bytes(tensor: onnx.TensorProto) -> bytes:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.STRING:
        return b""
    if not tensor.raw_data:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return bytes(tensor.raw_data)


def _refer(tensor: onnx.TensorProto, data: str, offset: int, length: int) -> None:
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", data), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
