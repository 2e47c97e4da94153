"""Fashion-MNIST as Debian installs it: counts of the paper, and clear words where it is missing or damaged."""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import numpy as np
import pytest

from eightfold.errors import ImageError
from eightfold.zoo.datasets.fashion import FOLDER, LABELS, read_fashion
from eightfold.zoo.datasets.folders import write_dataset

installed = pytest.mark.skipif(not FOLDER.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")


@installed
def test_the_test_part_has_a_thousand_of_each_class() -> None:
    images, labels = read_fashion("test")
    assert images.shape == (10_000, 28, 28)
    assert np.bincount(labels).tolist() == [1000] * 10


@installed
def test_it_becomes_folders(tmp_path: Path) -> None:
    write_dataset("fashion", tmp_path / "data", train_images=30, test_images=20, seed=1)
    images, labels = read_fashion("test")
    files = list((tmp_path / "data" / "test").glob("*/*.png"))
    assert len(files) == 20
    for file in files:
        assert LABELS[labels[int(file.stem)]] == file.parent.name
        np.testing.assert_array_equal(np.asarray(cv2.imread(str(file), 0)), images[int(file.stem)])


def test_without_the_package_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="apt-get install dataset-fashion-mnist"):
        read_fashion("train", tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(b"damaged")
    with pytest.raises(ImageError, match="cannot be unpacked"):
        read_fashion("test", tmp_path)
    file.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + np.array([2, 28, 28], ">i4").tobytes() + bytes(28)))
    with pytest.raises(ImageError, match="is no IDX file"):
        read_fashion("test", tmp_path)
