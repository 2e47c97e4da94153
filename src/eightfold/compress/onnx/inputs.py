"""Example inputs of a graph: what it declares, and sizes for its dynamic dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eightfold.compress.modules.modules import plain_attention
from eightfold.compress.onnx.host import Host
from eightfold.compress.onnx.module import GraphInput, OnnxModule
from eightfold.compress.onnx.step import NodeStep
from eightfold.compress.trace.fake.fake_run import FakeRun
from eightfold.errors import ModelError, TraceError, first_line

SIDE = 224
CHANNELS = (1, 3, 4)


def example_inputs(
    inputs: Sequence[GraphInput], *, size: tuple[int, int] | None = None, batch: int = 1
) -> tuple[Tensor, ...]:
    """One tensor for each input: random values in [0, 1), or zeros of whole numbers.

    Args:
        size: (height, width) for dynamic dimensions of images; 224 when None.
        batch: for a dynamic first dimension.

    Raises:
        ModelError: `size` is not that of a fixed input, or nothing says how long a dynamic dimension is.
    """
    random = torch.Generator().manual_seed(0)
    return tuple(_example(each, size, batch, random) for each in inputs)


def _example(each: GraphInput, size: tuple[int, int] | None, batch: int, random: torch.Generator) -> Tensor:
    shape = list(each.shape)
    if shape and not shape[0]:
        shape[0] = batch
    if len(shape) == 4:
        sides = (1, 2) if channels_last(each) else (2, 3)
        for dim, side in zip(sides, size or (SIDE, SIDE), strict=True):
            if size and shape[dim] not in (0, side):
                fixed = f"{shape[sides[0]]}x{shape[sides[1]]}"
                raise ModelError(
                    f"input {each.name!r} has the fixed size {fixed}, not {size[0]}x{size[1]}",
                    allowed="the size of the file",
                    remedy="leave --size out",
                )
            shape[dim] = shape[dim] or side
        shape[3 if channels_last(each) else 1] = shape[3 if channels_last(each) else 1] or 3
    if not all(shape):
        shown = ", ".join(str(length or "?") for length in each.shape)
        raise ModelError(
            f"input {each.name!r} has the shape ({shown}) and its dynamic axes have no known length",
            allowed="images, or inputs of fixed shape",
            remedy="fix it first (`eightfold export MODEL.onnx --constant NAME=VALUE -o BUNDLE`)",
        )
    if each.dtype.is_floating_point:
        return torch.rand(shape, generator=random).to(each.dtype)
    return torch.zeros(shape, dtype=each.dtype)


def channels_last(each: GraphInput) -> bool:
    """True if an image input has its channels behind its sides, as tf2onnx and Keras write it."""
    return len(each.shape) == 4 and each.shape[3] in CHANNELS and each.shape[1] not in CHANNELS


def image_size_of(inputs: Sequence[GraphInput], size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of the first image input, `size` or 224 where it is dynamic."""
    height, width = size or (SIDE, SIDE)
    for each in inputs:
        if is_image(each):
            first = 1 if channels_last(each) else 2
            return each.shape[first] or height, each.shape[first + 1] or width
    return height, width


def is_image(each: GraphInput) -> bool:
    """True for an input of four axes that holds float images."""
    floating = each.dtype.is_floating_point or each.dtype == torch.uint8
    return len(each.shape) == 4 and floating


def settle(module: OnnxModule, size: tuple[int, int] | None = None) -> None:
    """Run the module once for its shapes, so that every step knows which of its sizes are constants of the graph.

    Raises:
        TraceError: the graph does not run on the inputs that it declares.
    """
    value_shapes(module, example_inputs(module.inputs, size=size))


def output_shapes(module: OnnxModule, examples: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of every output that a node computes; see `value_shapes`."""
    shapes = value_shapes(module, examples)
    return {name: shapes[name] for name in module.outputs if name in shapes}


def value_shapes(module: OnnxModule, examples: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    """Shape of every value that the graph computes on `examples`; heavy products are not computed.

    Raises:
        TraceError: the graph does not run on them.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(step: nn.Module, _: object, made: object) -> None:
        if isinstance(step, NodeStep) and isinstance(made, tuple):
            tensors = [value.tensor if isinstance(value, Host) else value for value in made]
            shapes.update((name, tuple(tensor.shape)) for name, tensor in zip(step.makes, tensors, strict=False))
            shapes[step.key] = tuple(tensors[0].shape)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        with torch.no_grad(), plain_attention(), FakeRun():
            module(*examples)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        seen = ", ".join(str(tuple(example.shape)) for example in examples)
        raise TraceError(
            f"the graph does not run on inputs of shape {seen} ({type(error).__name__}: {first_line(error)})",
            allowed="a graph that runs at the requested size",
            remedy="give another size with --size HEIGHTxWIDTH, or check the file with onnx.checker",
        ) from error
    finally:
        handle.remove()
    return shapes
