"""Weights that several ONNX files have in common, stored once: in one file of raw bytes that all of them refer to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.files import PathLike, atomic_path, sha256_of_bytes, write_bytes
from eightfold.onnx_graph.onnx_files import ALIGNMENT_BYTES, SMALLEST_EXTERNAL_BYTES, load_onnx, refer_to

if TYPE_CHECKING:
    import onnx


def share_weights(paths: Sequence[PathLike], data: str) -> Path:
    """Rewrite ONNX files of one folder in place so that equal weights are stored once, in `data` beside them.

    Args:
        paths: ONNX files in one folder, e.g. the same network at several batches; weights that lie beside them already
            are taken along.
        data: name of the file that will hold the weights.

    Returns:
        The path of that file. The same graphs give the same bytes.
    """
    files = [Path(path) for path in paths]
    blob = files[0].with_name(data)
    shells = []  # one graph at a time has its weights in memory
    with atomic_path(blob) as temporary, temporary.open("wb") as stream:
        offsets: dict[str, int] = {}
        for model in map(load_onnx, files):
            for tensor in model.graph.initializer:
                raw = _raw_bytes(tensor)
                if len(raw) < SMALLEST_EXTERNAL_BYTES:
                    continue
                digest = sha256_of_bytes(raw)
                if digest not in offsets:
                    stream.write(bytes(-stream.tell() % ALIGNMENT_BYTES))
                    offsets[digest] = stream.tell()
                    stream.write(raw)
                refer_to(tensor, data, offsets[digest], len(raw))
            shells.append(model)
    for file, model in zip(files, shells, strict=True):
        write_bytes(file, model.SerializeToString(deterministic=True))
    return blob


def _raw_bytes(tensor: onnx.TensorProto) -> bytes:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.STRING:
        return b""
    if not tensor.raw_data:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return bytes(tensor.raw_data)
