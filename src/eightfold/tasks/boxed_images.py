"""Images with the objects in each: boxes and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import ImageError
from eightfold.files import sha256_of_bytes


@dataclass(frozen=True, eq=False)
class Objects:
    """Annotated objects of one image.

    Attributes:
        boxes: (n, 4) float64, x1, y1, x2, y2 in pixels of the image.
        classes: (n,) int64.
        crowd: (n,) bool; a box around many, in which any number may be found, or none.
    """

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[float], int, bool]]) -> Objects:
        """From (box, class, whether it is a crowd) of each."""
        return Objects(
            np.array([box for box, _, _ in rows], np.float64).reshape(-1, 4),
            np.array([index for _, index, _ in rows], np.int64),
            np.array([crowd for _, _, crowd in rows], bool),
        )


@dataclass(frozen=True, eq=False)
class BoxedImages(ImageSet):
    """Images with the objects in each; `classes` are the names of theirs."""

    objects: tuple[Objects, ...] = ()

    def subset(self, indices: Sequence[int]) -> Self:
        return replace(super().subset(indices), objects=tuple(self.objects[index] for index in indices))

    def digest(self) -> str:
        """SHA-256 over the images' bytes, their order, and what is annotated; paths do not count."""
        lines = [super().digest(), *self.classes]
        lines += [part.tobytes().hex() for each in self.objects for part in (each.boxes, each.classes, each.crowd)]
        return sha256_of_bytes("\n".join(lines).encode())


def class_index(name: str, classes: Sequence[str], path: Path) -> int:
    """Number of the class `name`. Raises ImageError where the network has none of that name; `path` is for it."""
    if name not in classes:
        raise ImageError(
            f"{path} has objects of class {name!r}",
            allowed=", ".join(classes),
            remedy="name all classes of the network, in their order, as task.labels",
        )
    return classes.index(name)
