"""A torch module is run once: what it puts out, and by which names a graph of it has that."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eightfold.errors import ModelError, UsageError, first_line

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def evaluating(*models: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; each module gets its own flag back, since some keep parts frozen while others train."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        set_evaluation(model)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def set_evaluation(model: torch.nn.Module) -> None:
    """Evaluation mode, for modules of `torch.export` as well: their mode is part of the graph, and `eval()` raises."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False


def require_module(model: object) -> None:
    """Raise ModelError for what is no module, such as the program that `torch.export.export` gives."""
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"the model is a {type(model).__name__}",
            allowed="a torch.nn.Module",
            remedy="give program.module()" if hasattr(model, "graph_module") else "",
        )


def require_single_precision(model: torch.nn.Module) -> None:
    """Raise ModelError where the parameters are of another floating type than images are: float32."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(
                f"{class_name(model)} has {kind} parameters ({name})",
                allowed="float32 parameters",
                remedy="call model.float() first; `eightfold half` makes float16 files of float32 ones",
            )


def input_names(model: torch.nn.Module) -> tuple[str, ...]:
    """The names that its graph has for a model's inputs: "images" for the only one; where forward() cannot do without
    further ones, as in stereo vision and optical flow, its own names for them."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError:  # compiled ones may have none
        return ("images",)
    needed = tuple(
        each.name
        for each in parameters
        if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    )
    return needed if len(needed) > 1 else ("images",)


def run_module(model: torch.nn.Module, *images: torch.Tensor) -> Any:
    """The model's output without gradients. Raises ModelError where the model does not take `images`."""
    import torch

    try:
        with torch.no_grad():
            return model(*images)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError) as error:
        shapes = " and ".join(str(tuple(each.shape)) for each in images)
        raise ModelError(
            f"{class_name(model)} does not run on an input of shape {shapes} ({first_line(error)})",
            allowed="a model whose forward() takes one image tensor, or several of one shape",
            remedy="check image_size and channels; a network with inputs of other kinds comes as an ONNX file",
        ) from error


def named_outputs(
    model: torch.nn.Module, images: Sequence[torch.Tensor], wanted: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """A model's outputs in order, by the names that its graph has for them; see `export_onnx`."""
    found = tuple(output_tensors(run_module(model, *images)))
    return dict(zip(_output_names(model, found, wanted), (tensor for _, tensor in found), strict=True))


def output_tensors(output: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a model's output, with the dictionary keys that lead to it ("" where there are none).

    A complex tensor of shape S comes as a real one of shape (*S, 2).
    """
    if isinstance(output, Mapping):
        for key, value in output.items():
            yield from output_tensors(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(output, list | tuple):
        for value in output:
            yield from output_tensors(value, prefix)
    elif hasattr(output, "dtype") and hasattr(output, "shape"):
        tensor: Any = output  # of torch, or what behaves like one
        yield prefix, _in_real_numbers(tensor)


def _in_real_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """ONNX graphs hold a complex tensor as pairs of real numbers, along a last axis of its own."""
    import torch

    return (
        torch.view_as_real(tensor.resolve_conj())
        if isinstance(tensor, torch.Tensor) and tensor.is_complex()
        else tensor
    )


def _output_names(
    model: torch.nn.Module, found: Sequence[tuple[str, torch.Tensor]], wanted: Sequence[str]
) -> list[str]:
    if not found:
        raise ModelError(f"{class_name(model)} returns no tensor", allowed="tensors, or lists or dictionaries of them")
    if wanted and len(wanted) != len(found):
        raise UsageError(f"{len(wanted)} output names for {len(found)} outputs", allowed="one name per output")
    keys = [key for key, _ in found]
    if wanted:
        return list(wanted)
    if all(keys) and len(set(keys)) == len(keys):
        return keys
    if len(found) == 1 and found[0][1].ndim == 2:
        return ["logits"]
    return [f"output{index}" for index in range(len(found))]


def class_name(model: torch.nn.Module) -> str:
    """Of the network itself, where `model` wraps it for the export."""
    inner = getattr(model, "model", None)
    return type(inner if type(model).__name__ == "Flat" and inner is not None else model).__name__
