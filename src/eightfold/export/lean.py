"""Graphs without the weights that lie beside them, for tools that copy whatever they are given.

protobuf cannot pass on more than 2 GiB, and simplifiers pass graphs on. They see such weights as inputs: what they find
out about the nodes holds all the same, and constant folding of large weights is left to our own passes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.export.onnx_files import external_files, save_onnx

if TYPE_CHECKING:
    import onnx


def without_weights(path: Path) -> Path:
    """Write `path`'s graph with its external weights as inputs; `path` itself where it has none."""
    if not external_files(path):
        return path
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    for tensor in _external(model):
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    kept = [tensor for tensor in model.graph.initializer if not tensor.external_data]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return save_onnx(model, path.with_suffix(".lean.onnx"))


def with_weights(lean: Path, path: Path) -> Path:
    """Give what became of a graph from `without_weights` its weights back, which stay where they are: beside `path`.

    Both files lie in one folder. Returns the whole graph's path; `lean` where nothing was taken away.
    """
    if not external_files(path):
        return lean
    import onnx

    model = onnx.load(str(lean))
    weights = _external(onnx.load(str(path), load_external_data=False))
    names = {tensor.name for tensor in weights}
    inputs = [value for value in model.graph.input if value.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(weights)
    whole = lean.with_suffix(".whole.onnx")
    whole.write_bytes(model.SerializeToString(deterministic=True))
    return whole


def _external(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in model.graph.initializer if tensor.external_data]
