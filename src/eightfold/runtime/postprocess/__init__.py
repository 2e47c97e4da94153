"""Decoders by name: what a task's `decode` may say. Definitions: docs/decoders.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eightfold.calib.geometry import Placement
from eightfold.errors import BundleError, UnknownNameError
from eightfold.runtime.backends.base import Arrays
from eightfold.runtime.manifest import Task
from eightfold.runtime.postprocess.classify import TopK

# Outputs by name, one placement per image (fewer than rows when the batch is padded) -> one result per image.
Decoder = Callable[[Arrays, Sequence[Placement]], Sequence[Any]]

DECODERS: dict[str, Callable[..., Decoder]] = {"classify": TopK}
ALIASES = {"softmax": "classify", "topk": "classify", "top-k": "classify"}


def decoder_of(task: Task) -> Decoder:
    """The decoder that a manifest asks for, with its options."""
    name = ALIASES.get(task.decode, task.decode)
    if name not in DECODERS:
        raise UnknownNameError.of("decoder", task.decode, DECODERS)
    try:
        return DECODERS[name](labels=task.labels, **task.options)
    except TypeError as error:
        raise BundleError(f"decoder {task.decode!r} has options {task.options} ({error})") from None
