"""Unlabelled photographs as the data of a run: read, divided into calibration and held-out images, and copied."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np

from eightfold.calib.images.image_set import ImageSet, ImageWarning
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError
from eightfold.files import atomic_directory
from eightfold.recipe_sections import DataSection

# One image in so many is held out to compare answers on.
HELD_OUT = 4


def is_unlabelled(source: str) -> bool:
    """True if a source of images is a folder without the parts train/ and test/ of a labelled data set, or a list."""
    path = Path(source)
    if path.is_dir():
        return not _has_parts(path)
    return path.suffix.lower() in (".txt", ".jpg", ".jpeg", ".png", ".bmp", ".webp") or any(c in source for c in "*?[")


def _has_parts(folder: Path) -> bool:
    parts = [part for names in (("train",), ("test", "valid", "val")) for part in names if (folder / part).is_dir()]
    return len(parts) >= 2


def open_photos(source: str) -> ImageSet:
    """The images of a source without labels.

    Raises:
        ImageError: there are none, or all lie in a labelled data set below the folder: its test images would be among
            those that the network is fitted to.
    """
    images, path = open_images(source), Path(source)
    if not path.is_dir():
        return images
    for below in sorted(each for each in path.iterdir() if each.is_dir() and _has_parts(each)):
        if all(isinstance(item, Path) and item.is_relative_to(below) for item in images.items):
            raise ImageError(
                f"{source} has no train/LABEL/* and test/LABEL/* files, but {below}, where all its images lie",
                allowed="train/LABEL/* and test/LABEL/*, or images without such parts",
                remedy=f"did you mean {below}?",
            )
    return images


def write_photos(
    data: DataSection, directory: Path, *, seed: int, preprocess: Preprocess | None = None, held_out: bool = True
) -> None:
    """Copy readable images into `directory`, as `train/images` and `test/images`.

    At most `data.train_images` and `data.test_images`; one in four is held out for the test. A single image serves for
    both. Images that cannot be read are left out with a warning.

    Args:
        preprocess: images that it does not take are left out like those that cannot be read.
        held_out: whether images are held out for the test; else all are for training.

    Raises:
        ImageError: none can be read.
    """
    most = data.train_images + data.test_images
    found = _readable(open_photos(data.source), most, seed, data.source, preprocess)
    kept = min(data.test_images, max(1, len(found) // HELD_OUT)) if held_out else 0
    order = np.random.default_rng(seed).permutation(len(found)).tolist()
    test, train = order[:kept], order[kept:][: data.train_images] or order
    with atomic_directory(directory) as temporary:
        for part, places in (("train", train), ("test", test)):
            folder = temporary / part / "images"
            folder.mkdir(parents=True)
            for number, place in enumerate(sorted(places)):
                shutil.copyfile(found[place], folder / f"{number:06d}-{found[place].name}")


def _readable(images: ImageSet, most: int, seed: int, source: str, preprocess: Preprocess | None) -> list[Path]:
    """At most `most` of the readable images, in random order."""
    readable: list[Path] = []
    lost: list[ImageError] = []
    for place in np.random.default_rng(seed).permutation(len(images)).tolist():
        item = images.items[place]
        if len(readable) == most or not isinstance(item, Path):
            break
        try:
            images.load(place) if preprocess is None else images.load_for(place, preprocess)
        except ImageError as error:
            lost.append(error)
        else:
            readable.append(item)
    if not readable:
        raise ImageError(
            f"none of the {len(images)} images in {source} can be read ({lost[0].seen})",
            allowed="JPEG, PNG and other pictures that OpenCV reads, of the preprocessing's channels and bits",
            remedy=lost[0].remedy or "look at one of them with another program",
        )
    if lost:
        text = f"{len(lost)} images in {source} cannot be read and are left out, the first: {lost[0].seen}"
        warnings.warn(ImageWarning(text), stacklevel=2)
    return readable
