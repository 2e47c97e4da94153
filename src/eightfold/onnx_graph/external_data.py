"""External weights: reads the files beside an ONNX graph into its tensors.

`onnx` itself refuses files behind symbolic and hard links, of which the caches of model hubs are made. A location is
judged by its text instead: it is relative and never leads out of the graph's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from eightfold.errors import ModelError
from eightfold.files import refuse_lfs_pointer

if TYPE_CHECKING:
    import onnx


def load_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """Replace every reference to a file in `folder` by its bytes, in place.

    Raises:
        ModelError: a location leads out of the folder, or a file is shorter than the tensor needs.
        OSError: a file cannot be read.
    """
    for tensor in _tensors(model):
        load_external_tensor(tensor, folder)


def load_external_tensor(tensor: onnx.TensorProto, folder: Path) -> None:
    """The same for one tensor, which may lie in the graph already."""
    from onnx import TensorProto

    if tensor.data_location == TensorProto.EXTERNAL:
        tensor.raw_data = _read(tensor, folder)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _read(tensor: onnx.TensorProto, folder: Path) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    parts = PurePosixPath(location.replace("\\", "/"))
    if not location or parts.is_absolute() or ".." in parts.parts:
        raise ModelError(
            f"tensor {tensor.name!r:.80} has its data in {location!r:.100}",
            allowed="files in the folder of the ONNX file",
        )
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
    except ValueError:
        raise ModelError(f"tensor {tensor.name!r:.80} does not state the location of its data") from None
    with (folder / location).open("rb") as stream:
        stream.seek(max(offset, 0))
        data: bytes = stream.read(length)
    if len(data) < length:
        refuse_lfs_pointer(folder / location)
        raise ModelError(
            f"{location} ends within tensor {tensor.name!r:.80}", allowed="whole files", remedy="copy it again"
        )
    return data


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _tensors_of_graph(graph)
