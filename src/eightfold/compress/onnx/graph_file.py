"""A user's ONNX file beside the module that runs it: read once, written back with the module's values.

The graph is kept as it is in the file, but for vectors that nodes share without need (see `own_vectors`). Weights are
held by the module only, so that a large file takes its size once while it is worked on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.compress.onnx.build import build_module, require_executable
from eightfold.compress.onnx.constants import require_external
from eightfold.compress.onnx.inputs import example_inputs, settle, value_shapes
from eightfold.compress.onnx.module import OnnxModule
from eightfold.compress.onnx.own_vectors import give_own_vectors
from eightfold.compress.onnx.write_back import write_back
from eightfold.errors import ModelError
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx, shell_of

if TYPE_CHECKING:
    import onnx

# What makes a graph a quantized one, in any domain.
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class OnnxGraph:
    """A graph and the module that runs it.

    Attributes:
        model: the graph; initializers that `module` holds have a name, a type and a shape here, and no content.
        module: runs it.
        size: (height, width) for dynamic dimensions of images, in runs for shapes.
    """

    path: Path
    model: onnx.ModelProto
    module: OnnxModule
    size: tuple[int, int] | None = None

    def save(self, output: PathLike, module: OnnxModule | None = None) -> Path:
        """Write the graph with the weights and widths of `module`: its own, or one that was made from it.

        Names, order, attributes, metadata, inputs and outputs stay. Weights beyond 2 GiB go to a file beside it.
        """
        module = module or self.module
        shapes = value_shapes(module, example_inputs(module.inputs, size=self.size))
        return save_onnx(write_back(self.model, module, shapes), output)


def open_onnx(path: PathLike, *, size: tuple[int, int] | None = None) -> OnnxGraph:
    """Read a graph, and make the module that runs it.

    Args:
        size: (height, width) that dynamic dimensions of images are taken to have when the graph is first run.

    Raises:
        ModelError: not a whole ONNX file, an opset that is not run, already quantized.
        TraceError: an operator cannot run in torch.
    """
    path = Path(path)
    model = load_onnx(path, external=False, normal=False)
    require_external(path)
    _require_float(model.graph, path)
    give_own_vectors(model.graph, path.parent)
    module = build_module(model, path.parent)
    shell = shell_of(model)
    held = {*module._parameters, *module._buffers}
    for tensor in model.graph.initializer:
        added = shell.graph.initializer.add()
        if tensor.name in held:
            added.name, added.data_type = tensor.name, tensor.data_type
            added.dims.extend(tensor.dims)
        else:
            added.CopyFrom(tensor)
    settle(module, size)
    return OnnxGraph(path, shell, module, size)


def require_prunable(path: PathLike) -> None:
    """Look at the nodes of a file alone: raise ModelError for a quantized graph, TraceError for an operator that cannot
    run in torch."""
    path = Path(path)
    graph = load_onnx(path, external=False, normal=False).graph
    _require_float(graph, path)
    require_executable(graph)


def onnx_module(path: PathLike, *, size: tuple[int, int] | None = None) -> OnnxModule:
    """An ONNX file as a torch module, whose parameters are the file's weights under their own names.

    The module runs as the graph does, in evaluation mode at all times, can be trained, and is written back by
    `write_weights`. See `open_onnx` for the arguments and errors.
    """
    return open_onnx(path, size=size).module


def write_weights(path: PathLike, module: OnnxModule, output: PathLike) -> Path:
    """Write the ONNX file at `path` with the weights and widths of `module`, which was made from it.

    Raises:
        ModelError: the module was made from another graph; names the first weight that is missing.
    """
    graph = open_onnx(path)
    for name in (*graph.module._parameters, *graph.module._buffers):
        if name not in module._parameters and name not in module._buffers:
            raise ModelError(
                f"the weight {name!r} of {path} is not in the module",
                allowed="a module that `onnx_module` made from the file",
                remedy="pass the file that it was made from",
            )
    return graph.save(output, module)


def _require_float(graph: onnx.GraphProto, path: Path) -> None:
    quantized = [node for node in graph.node if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear")]
    if quantized:
        first = f"{quantized[0].op_type} {quantized[0].name or quantized[0].output[0]!r}"
        raise ModelError(
            f"{path} is already quantized ({len(quantized)} nodes, the first: {first})",
            allowed="a float graph",
            remedy="prune the float graph that it was made from, and quantize the result (`eightfold quantize`)",
        )
