"""A torch module becomes a fixed-size ONNX file: static shapes, names for people, the same bytes every time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eightfold.errors import EightfoldError, ModelError, UsageError, first_line
from eightfold.export.opset.opset_conversion import require_opset, with_opset
from eightfold.export.opset.opsets import opsets_for
from eightfold.export.torch.decompositions.decomposing import decomposed
from eightfold.export.torch.small_sums import adds_small_constants
from eightfold.export.torch.suppress_logs import suppress_logs
from eightfold.export.verify.module_runs import (
    class_name,
    evaluating,
    input_names,
    named_outputs,
    output_tensors,
    require_module,
    require_single_precision,
)
from eightfold.extras import installed, require
from eightfold.files import PathLike
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.names import inner_graphs
from eightfold.onnx_graph.onnx_clean import clean
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx
from eightfold.scratch import scratch_folder

if TYPE_CHECKING:
    import onnx
    import torch

Exporter = Literal["auto", "torchscript", "dynamo"]
Tensors = Mapping[str, "torch.Tensor"]

# The newer exporter writes opset 18 and up; its graphs are rewritten for older ones.
DYNAMO_LOWEST_OPSET = 18
OTHER_OPSET = "ask for a higher opset, or change forward() so that the TorchScript exporter can follow it"


def export_onnx(
    model: torch.nn.Module,
    path: PathLike,
    *,
    batch: int,
    image_size: int | tuple[int, int],
    opset: int | None = None,
    targets: Sequence[str] = (),
    channels: int = 3,
    output_names: Sequence[str] = (),
    exporter: Exporter = "auto",
) -> Path:
    """Export `model` with one input, "images": float32 (batch, channels, height, width); or with several of that shape.

    The model is run in evaluation mode and left as it was. The same weights give the same bytes in every process.

    Args:
        model: a module whose forward takes one image tensor, or several of one shape under its own names for them (all
            its parameters that have no default), and returns tensors, or lists, tuples or dictionaries of tensors.
        path: where the file goes.
        batch: images per run; static, like every other shape.
        image_size: side of a square, or (height, width), in pixels.
        opset: version of ONNX's operator set; when None, 17, or the newest that all `targets` read where that is older,
            or 18 where the network cannot be written in 17 and all of them read that.
        targets: what the file is for: "tensorrt:8.2", "rtx:sm86", "cpu-x86", ...
        channels: colour channels of the input.
        output_names: names of the outputs in order. By default dictionary keys; "logits" for a single output of
            shape (batch, classes); otherwise "output0", "output1", ...
        exporter: "torchscript", "dynamo", or "auto", which tries one after the other. The one that worked is
            written into the file's metadata as "exporter".

    Returns:
        `path`.

    Raises:
        ModelError: the model does not run on such an input, or no exporter can follow it.
    """
    torch = require("torch", "export a torch module")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(batch, height, width, channels) < 1:
        raise UsageError(f"batch {batch}, {channels} channels, {height}x{width}", allowed="whole numbers of at least 1")
    require_module(model)
    reference = next(model.parameters(), torch.empty(0))
    # Random, because some networks take another path on constant images (e.g. when nothing is detected).
    random = torch.Generator().manual_seed(0)
    examples = [torch.rand(batch, channels, height, width, generator=random) for _ in input_names(model)]
    graph = onnx_from_module(
        model,
        *(example.to(reference.device) for example in examples),
        opset=opset,
        targets=targets,
        output_names=output_names,
        exporter=exporter,
    )
    return save_onnx(graph, path)


def onnx_from_module(
    model: torch.nn.Module,
    *examples: torch.Tensor,
    opset: int | None = None,
    targets: Sequence[str] = (),
    output_names: Sequence[str] = (),
    exporter: Exporter = "auto",
) -> onnx.ModelProto:
    """The same in memory: `examples`, one for each input, fix shape and dtype."""
    require_opset(opset)
    require_single_precision(model)
    allowed = opsets_for(targets) if opset is None else range(opset, opset + 1)
    with evaluating(model):
        with decomposed() as words:
            found = named_outputs(model, examples, output_names)
        inputs = dict(zip(input_names(model), examples, strict=True))
        graph = _export(_flat(model, bool(words.operators)), inputs, list(found), allowed, exporter)
    _state_output_shapes(graph, list(found.values()))
    return clean(graph)


def exporter_of(model: onnx.ModelProto) -> str:
    """The exporter that wrote a file of `export_onnx`; "" for other files."""
    return next((str(entry.value) for entry in model.metadata_props if entry.key == "exporter"), "")


def exporter_order(exporter: Exporter) -> tuple[str, ...]:
    """Exporters to try, in order. TorchScript comes first: it honours every opset and takes a tenth of the time."""
    if exporter != "auto":
        return (exporter,)
    return ("torchscript", "dynamo")


def _export(
    model: torch.nn.Module, inputs: Tensors, names: Sequence[str], opsets: range, exporter: Exporter
) -> onnx.ModelProto:
    failures = []
    for choice in exporter_order(exporter):
        try:
            graph = _EXPORTERS[choice](model, inputs, names, opsets)
            _require_running(graph, inputs)
        # The exporters raise anything at all, from RuntimeError to SystemError, when they cannot follow a model.
        except Exception as error:
            if isinstance(error, EightfoldError | MemoryError) and not isinstance(error, _DoesNotRunError):
                raise
            failures.append(f"{choice}: {first_line(_cause(error))}")
            continue
        graph.metadata_props.add(key="exporter", value=choice)
        return graph
    raise ModelError(
        f"{class_name(model)} cannot be exported ({'; '.join(failures)})",
        allowed="a model that one of torch's exporters can follow",
        remedy="remove the operation that the message names from forward(), or export to ONNX yourself",
    )


def _cause(error: BaseException) -> BaseException:
    """The cause of an error of the newer exporter, whose message is about itself."""
    while error.__cause__ is not None and not isinstance(error, EightfoldError):
        error = error.__cause__
    return error


class _DoesNotRunError(ModelError):
    """An exporter wrote a graph that does not run."""


def _require_running(graph: onnx.ModelProto, inputs: Tensors) -> None:
    """Graphs with branches are run once: where TorchScript does not know a shape, it writes both ways to go on, one of
    which may be wrong for all inputs (the skips of MViT)."""
    from eightfold.export.verify.verify import runner

    branches = any(True for node in graph.graph.node for _ in inner_graphs(node))
    if not branches or not installed("onnxruntime"):
        return
    try:
        runner(graph)({name: example.cpu().numpy() for name, example in inputs.items()})
    except ModelError as error:
        raise _DoesNotRunError(error.seen) from error


def _with_torchscript(model: torch.nn.Module, inputs: Tensors, names: Sequence[str], opsets: range) -> onnx.ModelProto:
    return _exported(model, inputs, names, opsets[0], dynamo=False)


def _with_dynamo(model: torch.nn.Module, inputs: Tensors, names: Sequence[str], opsets: range) -> onnx.ModelProto:
    opset = max(opsets[0], DYNAMO_LOWEST_OPSET)
    graph = None
    if not adds_small_constants(model, list(inputs.values())):  # which rewriting would drop
        graph = _exported(model, inputs, names, opset, dynamo=True, verbose=False)
    if graph is None or not _names_all(graph):
        # Rewriting Max and Min as Clip, the exporter loses constants where it does so twice (onnxscript 0.7).
        graph = _exported(model, inputs, names, opset, dynamo=True, verbose=False, optimize=False)
        with suppress_logs():
            require("onnxscript.optimizer", "export a torch module").fold_constants(graph)
    try:
        return with_opset(graph, opsets[0], remedy=OTHER_OPSET)
    except ModelError:
        if opset not in opsets:
            raise
        return graph  # what it needs came with a later opset, which nobody forbade


def _exported(
    model: torch.nn.Module, inputs: Tensors, names: Sequence[str], opset: int, **options: Any
) -> onnx.ModelProto:
    import torch

    with scratch_folder() as folder, suppress_logs():
        file = folder / "model.onnx"
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            str(file),
            input_names=list(inputs),
            output_names=list(names),
            opset_version=opset,
            **options,
        )
        return load_onnx(file)


def _names_all(graph: onnx.ModelProto) -> bool:
    """True if every tensor that a node reads is made somewhere."""
    index = GraphIndex(graph.graph)
    made = {"", *(value.name for value in graph.graph.input), *index.weights, *index.producer}
    return made.issuperset(index.readers)


_EXPORTERS: dict[str, Callable[[torch.nn.Module, Tensors, Sequence[str], range], onnx.ModelProto]] = {
    "torchscript": _with_torchscript,
    "dynamo": _with_dynamo,
}


def _flat(model: torch.nn.Module, in_other_words: bool) -> torch.nn.Module:
    """A module with a plain tuple of tensors as output. Class names end up in node names: keep the model's own."""
    import torch

    words = decomposed if in_other_words else contextlib.nullcontext

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with words():
                return tuple(tensor for _, tensor in output_tensors(self.model(*images)))

    flat = Flat()
    flat.training = False
    return flat


def _state_output_shapes(graph: onnx.ModelProto, tensors: Sequence[torch.Tensor]) -> None:
    """The TorchScript exporter loses some shapes on the way; the run has shown what they are."""
    for value, tensor in zip(graph.graph.output, tensors, strict=True):
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in tensor.shape:
            shape.dim.add(dim_value=size)
