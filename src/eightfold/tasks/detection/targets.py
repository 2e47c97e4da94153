"""Ground truths of a batch as one tensor, so that it is split between processes like the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from eightfold.calib.images.geometry import Floats
from eightfold.errors import ImageError

NOTHING = -1.0  # class of rows that fill up


def padded_targets(boxes: Sequence[Floats], classes: Sequence[np.ndarray]) -> Tensor:
    """[images, most, 5]: class, x1, y1, x2, y2 in tensor pixels; rows without an object have class -1."""
    most = max((len(each) for each in classes), default=0)
    found = torch.full((len(boxes), max(most, 1), 5), NOTHING)
    for row, (own, labels) in enumerate(zip(boxes, classes, strict=True)):
        if len(labels):
            found[row, : len(labels), 0] = torch.from_numpy(np.asarray(labels, np.float32))
            found[row, : len(labels), 1:] = torch.from_numpy(np.asarray(own, np.float32))
    return found


def require_classes(classes: Sequence[np.ndarray], names: Sequence[object], count: int) -> None:
    """Raises ImageError for the first class that the network does not have.

    Args:
        names: of the images, for the message.
        count: classes of the network.
    """
    for labels, name in zip(classes, names, strict=True):
        if len(labels) and (int(labels.max()) >= count or int(labels.min()) < 0):
            wrong = int(labels.max()) if int(labels.max()) >= count else int(labels.min())
            raise ImageError(
                f"{name} has an object of class {wrong}",
                allowed=f"0 to {count - 1}: the network knows {count} classes",
                remedy="correct the labels, or build the network with more classes",
            )
