"""Parses an ONNX file into a TensorRT network, converted to float16 first if types come from the graph."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Arrays
from eightfold.errors import BuildError
from eightfold.export.fp16.fp16 import checked_fp16
from eightfold.files import sha256_of_file
from eightfold.onnx_graph.onnx_files import external_files, load_onnx, save_onnx, shell_of
from eightfold.runtime.bundle.manifest import Step
from eightfold.scratch import scratch_folder

if TYPE_CHECKING:
    import onnx
    from tensorrt import ILogger, INetworkDefinition, OnnxParser


@dataclasses.dataclass(frozen=True)
class TypedGraph:
    """The file to parse, and the report of its conversion: see `Fp16Graph`."""

    path: Path
    sha256: str
    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()


@contextmanager
def typed_graph(
    onnx_path: Path,
    *,
    half: bool,
    inputs: Arrays | None,
    keep_float: Sequence[str] = (),
    model: onnx.ModelProto | None = None,
) -> Iterator[TypedGraph]:
    """The given file, or its float16 form, which lives as long as the context.

    Args:
        model: content of the file, if it is loaded already; its nodes may get names in place.
    """
    if not half:
        yield TypedGraph(onnx_path, sha256_of_onnx(onnx_path))
        return
    with scratch_folder() as folder:
        made = checked_fp16(onnx_path, keep_float=keep_float, inputs=inputs, model=model)
        path = save_onnx(made.model, folder / "half.onnx")
        yield TypedGraph(path, sha256_of_onnx(path), made.steps, made.kept)


def sha256_of_onnx(path: Path) -> str:
    """Of the file; where weights lie outside it, of the digests of all its files. The C++ builder writes the same."""
    digests = [sha256_of_file(path), *(sha256_of_file(path.parent / name) for name in external_files(path))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def sha256_of_graph(model: onnx.ModelProto) -> str:
    """Of nodes and weights, wherever these are stored: a bundle moves those that several files share to one of their
    own."""
    from onnx import numpy_helper

    digest = hashlib.sha256(shell_of(model).SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        digest.update(f"{tensor.name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def parse(trt: ModuleType, network: INetworkDefinition, logger: ILogger, path: Path) -> None:
    """Fill `network`. Raises BuildError with the parser's first error and the node it is about."""
    parser: OnnxParser = trt.OnnxParser(network, logger)
    # From memory where that is possible, so that no path of this machine gets into the messages.
    parsed = parser.parse_from_file(str(path)) if external_files(path) else parser.parse(path.read_bytes())
    if not parsed:
        raise BuildError(
            f"TensorRT's parser refuses the graph{first_parser_error(parser, path)}",
            allowed="operators of TensorRT's ONNX support table",
            remedy="replace the operator in the model, or cut the graph before it",
        )


def first_parser_error(parser: OnnxParser, path: Path) -> str:
    """Node and reason of the first error, as far as this version's parser tells: before 10 it gives the node's number
    only."""
    if not parser.num_errors:
        return ""
    error = parser.get_error(0)
    nodes = load_onnx(path, external=False).graph.node
    where = ""
    if 0 <= error.node() < len(nodes):
        node = nodes[error.node()]
        where = f" at node {node.name or node.output[0]!r} ({node.op_type})"
    return f"{where}: {_reason(error)}"


def _reason(error: Any) -> str:
    """'unsupported node', with the failed condition of the parser's source if there is one."""
    kind = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
    condition = " ".join(error.desc().split())
    return f"{kind} ({condition})" if condition not in ("", "false") else kind
