"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 + 10,000 grey images of 28x28 in ten classes, as Debian's
package installs it."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import ImageError

FASHION = "fashion"
FOLDER = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = "dataset-fashion-mnist"
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


class Part(NamedTuple):
    """Images uint8 [n, 28, 28] and labels uint8 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def read_fashion(part: str, folder: Path = FOLDER) -> Part:
    """One part of the data set.

    Args:
        part: "train" or "test".

    Raises:
        ImageError: the files are missing or damaged.
    """
    prefix = {"train": "train", "test": "t10k"}[part]
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
    if len(images) != len(labels) or images.shape[1:] != (28, 28) or labels.max(initial=0) >= len(LABELS):
        raise ImageError(f"{folder}: images {images.shape} and labels {labels.shape} do not belong together")
    return Part(images, labels)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """IDX file: two zero bytes, type 8 (uint8), number of dimensions, their sizes as big-endian int32, the values."""
    if not path.is_file():
        raise ImageError(f"no file {path}", remedy=f"run: apt-get install {PACKAGE}; or name a folder of images")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ImageError(f"{path} cannot be unpacked ({error})", remedy=f"install {PACKAGE} again") from None
    header = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:header], ">i4").astype(int)
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != header + int(shape.prod()):
        raise ImageError(f"{path} is no IDX file of {dimensions} dimensions", remedy=f"install {PACKAGE} again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
