"""The same images for two networks, each in the form that it takes: planes of floats, or pixels where the graph does
the preprocessing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.compare.runnables import Runnable
from eightfold.export.in_graph.in_graph import normalized, pixels_for
from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.onnx_graph.tensor_specs import TensorSpec

# What gives a network its inputs; None leaves them to chance.
Feeder = Callable[[Runnable], Arrays | None]
Shape = tuple[int, ...]


def feeds_of(
    subjects: tuple[Runnable, Runnable],
    inputs: Arrays | Feeder | None,
    preprocess: Preprocess | None,
    image_shape: tuple[int, int, int, int],
) -> tuple[Arrays, Arrays]:
    """The inputs that both are run on.

    Args:
        subjects: the two.
        inputs: arrays for both, pixels where one of them takes pixels; or a function that prepares the same images for
            either; random images when None.
        preprocess: how pixels become what the other one takes; a bundle's own when None.
        image_shape: of random images, where neither says what it takes.

    Raises:
        UsageError: the inputs of the two do not fit each other.
    """
    first, second = subjects
    if callable(inputs):
        given = inputs(first), inputs(second)
        if given[0] is not None and given[1] is not None:
            return first.fed(given[0]), second.fed(given[1])
        inputs = None
    if takes_pixels(first) != takes_pixels(second):
        return _from_pixels(subjects, inputs, preprocess)
    _require_alike(first, second, [spec.shape for spec in first.inputs], [spec.shape for spec in second.inputs])
    wanted = first.inputs or second.inputs or [_planes(name, image_shape) for name in first.names]
    feeds = random_inputs_of(wanted) if inputs is None else inputs
    return first.fed(feeds), second.fed(feeds)


def _planes(name: str, shape: Shape) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def takes_pixels(subject: Runnable) -> bool:
    """True if it takes uint8 images (batch, height, width, channels)."""
    return len(subject.inputs) == 1 and subject.inputs[0].dtype == "uint8" and len(subject.inputs[0].shape) == 4


def rules_for(subject: Runnable, given: Preprocess | None, other: Runnable | None = None) -> Preprocess | None:
    """The preprocessing of its images: the `given` rules at its size, else its own or the other's; in its form."""
    own = subject.preprocess
    rules = given or own or (other.preprocess if other is not None else None)
    if rules is None:
        return None
    rules = rules if own is None else rules.at_size(own.height, own.width)
    if takes_pixels(subject) and rules.dtype != "uint8":
        return pixels_for(rules)
    if not takes_pixels(subject) and rules.dtype == "uint8":
        return rules.model_copy(update={"layout": "nchw", "dtype": "float32"})
    return rules


def _from_pixels(
    subjects: tuple[Runnable, Runnable], inputs: Arrays | None, preprocess: Preprocess | None
) -> tuple[Arrays, Arrays]:
    pixels, planes = sorted(subjects, key=takes_pixels, reverse=True)
    feeds = random_inputs_of(pixels.inputs) if inputs is None else inputs
    if len(feeds) != 1 or any(array.dtype != np.uint8 for array in feeds.values()):
        seen = ", ".join(f"{name} {array.dtype}" for name, array in feeds.items())
        raise UsageError(f"inputs {seen}, where {pixels.name} takes pixels", allowed="uint8 images, for both")
    rules = rules_for(planes, preprocess, pixels)
    if rules is None:
        raise UsageError(
            f"{pixels.name} takes pixels and {planes.name} does not",
            allowed="a Preprocess that converts one into the other: a bundle's own, or a given one",
        )
    prepared = {name: _as_planes(array, rules) for name, array in feeds.items()}
    _require_alike(*subjects, [each.shape for each in prepared.values()], [spec.shape for spec in planes.inputs])
    fed = pixels.fed(feeds), planes.fed(prepared)
    return fed if pixels is subjects[0] else (fed[1], fed[0])


def _as_planes(pixels: Array, rules: Preprocess) -> Array:
    planes = normalized(rules, pixels)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)) if rules.layout == "nhwc" else planes


def _require_alike(first: Runnable, second: Runnable, shapes: list[Shape], others: list[Shape]) -> None:
    """Raises if both state their inputs and these differ."""
    if shapes and others and shapes != others:
        raise UsageError(
            f"{first.name} takes {_shown(first)}, {second.name} takes {_shown(second)}",
            allowed="two networks with the same inputs",
        )


def _shown(subject: Runnable) -> str:
    return ", ".join(f"{spec.name} {'x'.join(map(str, spec.shape))}" for spec in subject.inputs)
