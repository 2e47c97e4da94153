"""Places of a data set's classes among the outputs of a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eightfold.calib.images.image_set import ImageSet
from eightfold.errors import ImageError


def output_labels(
    images: ImageSet, outputs: int, *, known: Sequence[str] = (), source: object = "the folder"
) -> npt.NDArray[np.int64]:
    """For each image the place of its class among the outputs of a network.

    Folders are found by their names among `known`; else by their order, as torchvision's ImageFolder has it, where
    there are as many of them as outputs; else by their numbers.

    Args:
        images: with labels.
        outputs: classes that the network tells apart.
        known: their names, where the network has them.
        source: what errors call the images.

    Raises:
        ImageError: the images have no labels, or these do not fit.
    """
    if images.labels is None:
        raise ImageError(
            f"the images in {source} have no labels",
            allowed="a folder for each label: FOLDER/LABEL/*, or a list of both",
        )
    labels = np.asarray(images.labels, np.int64)
    if images.classes:
        return np.asarray(_places(images.classes, outputs, known, source), np.int64)[labels]
    if labels.min() < 0 or labels.max() >= outputs:
        raise ImageError(
            f"{source} has labels from {labels.min()} to {labels.max()}", allowed=f"0 to {outputs - 1}, as the network"
        )
    return labels


def _places(names: Sequence[str], outputs: int, known: Sequence[str], source: object) -> list[int]:
    if set(names) <= set(known):
        return [list(known).index(name) for name in names]
    strangers = [name for name in names if name not in known]
    if known and len(strangers) < len(names):
        raise ImageError(
            f"{source} has the class {strangers[0]!r}, which the network does not know",
            allowed=", ".join(known[:12]) + (", ..." if len(known) > 12 else ""),
            remedy="rename that folder or leave it out",
        )
    if len(names) == outputs:
        return list(range(outputs))
    if all(name.isdecimal() and int(name) < outputs for name in names) and len({*map(int, names)}) == len(names):
        return [int(name) for name in names]
    raise ImageError(
        f"{source} has {len(names)} classes and the network {outputs}",
        allowed="folders named by the network's classes or their numbers, or as many of them",
    )
