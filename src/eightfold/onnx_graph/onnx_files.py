"""Reads and writes ONNX files, atomically and with the same bytes for the same graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.errors import ModelError, first_line
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path, refuse_lfs_pointer, sha256_of_file
from eightfold.onnx_graph.canonicalize import canonicalized, sort_nodes
from eightfold.onnx_graph.external_data import load_external_data
from eightfold.onnx_graph.names import fault_of_names
from eightfold.onnx_graph.onnx_references import NotOnnxError, external_references, require_weights
from eightfold.onnx_graph.shape_inference import weight_bytes
from eightfold.onnx_graph.tensor_specs import TensorSpec, spec_of
from eightfold.onnx_graph.value_dependent import remedy_for_output

if TYPE_CHECKING:
    import onnx

# protobuf cannot hold more; beyond it the weights go to a file of their own. Some room is left for the graph itself.
PROTOBUF_LIMIT_BYTES = 2**31 - 2**24
# Smaller tensors stay in the graph, where shape inference and parsers can see them.
SMALLEST_EXTERNAL_BYTES = 1024
# Readers map the file; a page is what they can map.
ALIGNMENT_BYTES = 4096
DTYPE_OF_ELEM_TYPE = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
}


def load_onnx(path: PathLike, *, external: bool = True, normal: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, in its normal form, with its external weights or only with references to them.

    Without `normal`, the graph stays as it was written, unless it brings functions or sparse weights along.

    Raises ModelError for whatever is not a whole ONNX file.
    """
    require("onnx", "read ONNX files")
    import onnx
    from google.protobuf.json_format import ParseError as JsonError
    from google.protobuf.message import DecodeError
    from google.protobuf.text_format import ParseError as TextError

    # onnx goes by a file's suffix, and reads JSON and text as well.
    unreadable = (OSError, DecodeError, JsonError, TextError, onnx.checker.ValidationError)
    try:
        refuse_lfs_pointer(path)
        model = onnx.load(str(path), load_external_data=False)
        if normal or model.functions or model.graph.sparse_initializer:
            model = canonicalized(model)
        sort_nodes(model.graph)
        if external:
            load_external_data(model, Path(path).parent)
    # RuntimeError and TypeError: what the native part of onnx raises on the names of external weights.
    except (*unreadable, ValueError, RuntimeError, TypeError) as error:
        require_weights(Path(path))
        raise ModelError(
            f"cannot read {path} as ONNX ({_why(error)})",
            allowed="a whole ONNX file",
            remedy="check the path" if isinstance(error, FileNotFoundError) else "export it again",
        ) from None
    if not model.graph.node or not model.graph.output:
        raise ModelError(f"{path} holds no graph", allowed="an ONNX file with nodes and outputs")
    # protobuf hands text that is not UTF-8 out as bytes.
    if not all(isinstance(value.name, str) for value in (*model.graph.input, *model.graph.output)):
        raise ModelError(f"{path} has a tensor whose name is not UTF-8", allowed="a whole ONNX file")
    fault, remedy = fault_of_names(model.graph)
    if fault:
        raise ModelError(f"{path}: {fault}", allowed="one tensor of each name", remedy=remedy)
    return model


def _why(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else f"{first_line(error)}"


def save_onnx(model: onnx.ModelProto, path: PathLike) -> Path:
    """Write `model` atomically. Weights beyond protobuf's 2 GiB go to `<name>.<digest>.data` beside it."""
    path = Path(path)
    if not fits_protobuf(model):
        return _save_with_external_data(model, path)
    with atomic_path(path) as temporary:
        # Without `deterministic`, the order of protobuf maps may change from process to process.
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    return path


def fits_protobuf(model: onnx.ModelProto) -> bool:
    """True if a graph with its weights can be written as one message."""
    return _weight_bytes(model) < PROTOBUF_LIMIT_BYTES


def external_files(path: PathLike) -> tuple[str, ...]:
    """Names of the external weight files that an ONNX file refers to, in subgraphs as well, sorted."""
    try:
        return tuple(sorted({reference.location for reference in external_references(Path(path))}))
    except NotOnnxError as error:
        raise ModelError(f"cannot read {path} as ONNX ({error})", allowed="a whole ONNX file") from None


def tensor_specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a fixed-size graph. Raises ModelError where a shape is not static."""
    return input_specs(model), tuple(
        _spec(value, remedy_for_output(model.graph, value.name)) for value in model.graph.output
    )


def input_specs(model: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Inputs of a fixed-size graph, weights that old exporters list there left out."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(_spec(value) for value in model.graph.input if value.name not in weights)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operator set that the model imports."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def type_name(elem_type: int) -> str:
    """The name of an ONNX element type as numpy has it, where it has one."""
    from onnx import TensorProto

    known = DTYPE_OF_ELEM_TYPE | {TensorProto.DOUBLE: "float64"}
    return known.get(elem_type) or str(TensorProto.DataType.Name(elem_type)).lower()


def _spec(value: onnx.ValueInfoProto, remedy: str = "") -> TensorSpec:
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in tensor.shape.dim]
    if any(not isinstance(dim, int) for dim in dims):
        raise ModelError(
            f"tensor {value.name!r} has the shape ({', '.join(map(str, dims))})",
            allowed="static shapes",
            remedy=remedy or "freeze it with `eightfold export MODEL.onnx --batch N --size HxW`",
        )
    if tensor.elem_type not in DTYPE_OF_ELEM_TYPE:
        raise ModelError(
            f"tensor {value.name!r} is {type_name(tensor.elem_type)}",
            allowed=", ".join(DTYPE_OF_ELEM_TYPE.values()),
        )
    return spec_of(value.name, DTYPE_OF_ELEM_TYPE[tensor.elem_type], [int(dim) for dim in dims])


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(weight_bytes(tensor) for tensor in model.graph.initializer)


def _save_with_external_data(model: onnx.ModelProto, path: Path) -> Path:
    with atomic_path(path.with_suffix(".data")) as blob:
        shell = _written_beside(model, blob)
        final = f"{path.stem}.{sha256_of_file(blob)[:12]}.data"
        _rename_external_data(shell, final)
        with atomic_path(path.with_name(final)) as weights:
            blob.replace(weights)
            blob.touch()
    path.with_suffix(".data").unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(shell.SerializeToString(deterministic=True))
    return path


def _written_beside(model: onnx.ModelProto, blob: Path) -> onnx.ModelProto:
    """Write the large weights into `blob`, one after the other; returns the graph that refers to them.

    No copy of `model` is made on the way: it may be half of what the machine has.
    """
    from onnx import TensorProto

    shell = shell_of(model)
    with blob.open("wb") as stream:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < SMALLEST_EXTERNAL_BYTES:
                shell.graph.initializer.append(tensor)
                continue
            stream.write(bytes(-stream.tell() % ALIGNMENT_BYTES))
            beside = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            refer_to(beside, blob.name, stream.tell(), len(raw))
            stream.write(raw)
            shell.graph.initializer.append(beside)
    return shell


def shell_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` without its weights."""
    from onnx import ModelProto

    shell = ModelProto()
    _copy_fields(model, shell, without="graph")
    _copy_fields(model.graph, shell.graph, without="initializer")
    return shell


def refer_to(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    """Let the content of `tensor` be `length` bytes of a file beside the graph."""
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _copy_fields(source: Any, target: Any, *, without: str) -> None:
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if isinstance(value, str | int):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _rename_external_data(model: onnx.ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
