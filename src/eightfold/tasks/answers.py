"""Answers of the original network on held-out images, kept in one .npz, and images that carry them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.files import sha256_of_bytes, write_bytes


@dataclass(frozen=True, eq=False)
class AnsweredImages(ImageSet):
    """Images with what the original answers to each.

    Attributes:
        answers: name -> array whose first axis is the images'.
    """

    answers: Mapping[str, Array] = field(default_factory=dict)

    def subset(self, indices: Sequence[int]) -> Self:
        chosen = {name: array[list(indices)] for name, array in self.answers.items()}
        return replace(super().subset(indices), answers=chosen)

    def digest(self) -> str:
        """SHA-256 over the images' bytes, their order and the answers."""
        parts = [f"{name} {array.shape} {sha256_of_bytes(array.tobytes())}" for name, array in self.answers.items()]
        return sha256_of_bytes("\n".join([super().digest(), *parts]).encode())


def save_answers(answers: Mapping[str, Array], path: Path) -> None:
    """Write the arrays uncompressed, so that the same answers give the same bytes."""
    stream = io.BytesIO()
    named: dict[str, Any] = dict(answers)
    np.savez(stream, **named)
    write_bytes(path, stream.getvalue())


def with_answers(images: ImageSet, path: Path) -> AnsweredImages:
    """The images with the answers that `save_answers` wrote."""
    with np.load(path, allow_pickle=False) as held:
        return AnsweredImages(images.items, None, images.classes, {name: held[name] for name in held.files})
