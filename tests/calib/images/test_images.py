"""Reading images of every kind, sets of them, and what cannot be read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from eightfold.calib.images.data_reader import DataReader
from eightfold.calib.images.decode import read_image
from eightfold.calib.images.image_set import ImageSet, ImageWarning, warn_of_overlap
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError, MissingExtraError, UsageError

PLANES = [*np.meshgrid(np.arange(0, 240, 12), np.arange(0, 180, 12)), np.full((15, 20), 90)]
GRADIENT = np.dstack(PLANES).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def pictures(folder: Path, count: int, suffix: str = "png") -> list[Path]:
    random = np.random.default_rng(0)
    return [
        saved(folder / f"{i:02}.{suffix}", Image.fromarray(random.integers(0, 256, (8, 9, 3), dtype=np.uint8)))
        for i in range(count)
    ]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA"])
def test_every_kind_of_png_is_what_pillow_says(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(GRADIENT).convert(mode)
    path = saved(tmp_path / "image.png", image)
    np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    deep = (GRADIENT.astype(np.uint16) << 8) + 77
    cv2.imwrite(str(tmp_path / f"deep.{suffix}"), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / f"deep.{suffix}"), deep)


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = saved(tmp_path / "plain.jpg", Image.fromarray(GRADIENT), quality=95)
    tagged = saved(tmp_path / "tagged.jpg", Image.fromarray(GRADIENT), quality=95, exif=exif)
    np.testing.assert_array_equal(read_image(tagged), np.rot90(read_image(upright), turned))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"image.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"truncated|not an image"):
        read_image(path)


def test_a_thumbnails_end_is_not_the_images_end(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.jpg", Image.fromarray(GRADIENT))
    data = path.read_bytes()
    thumbnail = b"Exif\0\0" + data
    whole = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    path.write_bytes(whole)
    assert read_image(path).shape == (15, 20, 3)
    path.write_bytes(whole[:-40])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"hello", "not an image")])
def test_what_is_not_an_image_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "image.png").write_bytes(content)
    with pytest.raises(ImageError, match=words):
        read_image(tmp_path / "image.png")
    with pytest.raises(ImageError, match="cannot read"):
        read_image(tmp_path / "absent.png")


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = pictures(tmp_path, 1)
    monkeypatch.setattr("eightfold.extras.installed", lambda module: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'eightfold\[images\]'"):
        read_image(path)


def test_a_folder_of_folders_has_classes(tmp_path: Path) -> None:
    pictures(tmp_path / "cat", 2)
    pictures(tmp_path / "ant", 3)
    images = open_images(tmp_path)
    assert images.classes == ("ant", "cat")
    assert images.labels == (0, 0, 0, 1, 1)


def test_folders_behind_links_are_classes_like_others(tmp_path: Path) -> None:
    """A data set is often put together from links; one that leads back up is not followed for ever."""
    far = pictures(tmp_path / "elsewhere" / "cats", 2)
    pictures(tmp_path / "set" / "dog", 3)
    (tmp_path / "set" / "cat").symlink_to(far[0].parent)
    (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set")
    images = open_images(tmp_path / "set")
    assert images.classes == ("cat", "dog")
    assert images.labels == (0, 0, 1, 1, 1)


def test_hidden_files_and_folders_are_neither_images_nor_classes(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png", "dog/._b.png", ".ipynb_checkpoints/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = open_images(tmp_path)
    assert found.classes == ("cat", "dog")
    assert [Path(str(item)).name for item in found.items] == ["a.png", "b.png"]


def test_list_files_globs_and_arrays(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "sub", 3)
    (tmp_path / "list.txt").write_text("# comment\nsub/00.png\t4\n\nsub/02.png\t1\n")
    listed = open_images(tmp_path / "list.txt")
    assert listed.items == (paths[0], paths[2])
    assert listed.labels == (4, 1)
    assert open_images(f"{tmp_path}/**/*.png").items == tuple(paths)
    assert open_images([str(path) for path in paths]).digest() == open_images(tmp_path / "sub").digest()
    assert len(open_images(np.zeros((5, 4, 4, 3), np.uint8), labels=[0, 1, 0, 1, 0])) == 5


@pytest.mark.parametrize("label", ["cat", "-1", "1.5"])
def test_a_label_that_is_no_number_is_named(tmp_path: Path, label: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.png\t0\nb.png\t{label}\n")
    with pytest.raises(ImageError, match=rf"list.txt gives b.png the label '{label}'; allowed: the number of a class"):
        open_images(tmp_path / "list.txt")


def test_coco_and_yolo(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "val2017", 2)
    annotation = tmp_path / "annotations" / "instances_val2017.json"
    annotation.parent.mkdir()
    annotation.write_text(json.dumps({"images": [{"file_name": path.name} for path in paths]}))
    assert open_images(annotation).items == tuple(paths)
    (tmp_path / "data.yaml").write_text("path: .\nval: val2017\nnames: {0: a}\n")
    assert [Path(str(item)).resolve() for item in open_images(tmp_path / "data.yaml").items] == paths
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(ImageError, match="not COCO json"):
        open_images(tmp_path / "wrong.json")


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_no_images(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"does not exist|no images in"):
        open_images(tmp_path / name)


def test_the_digest_sees_content_order_and_labels_but_not_paths(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "a", 3)
    moved = pictures(tmp_path / "b", 3)
    assert open_images(paths).digest() == open_images(moved).digest()
    assert open_images(paths[::-1]).digest() != open_images(paths).digest()
    assert open_images(paths, labels=[0, 1, 2]).digest() != open_images(paths).digest()


def test_samples_are_balanced_and_repeatable() -> None:
    labels = [0] * 90 + [1] * 8 + [2] * 2
    images = open_images(
        np.zeros((100, 2, 2, 3), np.uint8) + np.arange(100, dtype=np.uint8)[:, None, None, None], labels=labels
    )
    drawn = images.sample(12, seed=3)
    assert np.bincount(drawn.labels or ()).tolist() == [5, 5, 2]
    assert drawn.digest() == images.sample(12, seed=3).digest() != images.sample(12, seed=4).digest()


def test_one_bad_image_in_thirty_is_skipped_and_counted(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 30)
    paths[4].write_bytes(b"no image")
    rows = DataReader(open_images(paths), Preprocess(height=4, width=4), (3, 4, 4))
    with pytest.warns(ImageWarning, match="skipped: .*04.png is not an image"):
        assert len(list(rows)) == 29
    assert (rows.tally.used, rows.tally.skipped) == (29, 1)


@pytest.mark.filterwarnings("ignore:skipped")  # the warnings are tested above
def test_too_many_bad_images_are_an_error(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 30)
    for path in paths[3:5]:
        path.write_bytes(b"")
    rows = DataReader(open_images(paths), Preprocess(height=4, width=4), (3, 4, 4))
    with pytest.raises(
        ImageError, match=r"2 of 30 images cannot be read, the first: .*03.png is empty.*allowed: at most 5%"
    ):
        list(rows)
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(ImageError, match="none of the 30 images can be read"):
        list(DataReader(open_images(paths), Preprocess(height=4, width=4), (3, 4, 4)))


def test_calibrating_on_what_is_evaluated_is_warned_about(tmp_path: Path) -> None:
    images = open_images(pictures(tmp_path, 6))
    with pytest.warns(ImageWarning, match="2 of 3 training images are also test images"):
        assert warn_of_overlap(images.subset([0, 1, 2]), images.subset([1, 2, 3])) == 2
    assert warn_of_overlap(images.subset([0]), images.subset([3])) == 0


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_sample_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"a sample of {count} images; allowed: at least 1"):
        ImageSet(()).sample(count)


def test_a_byte_order_mark_before_a_list_of_images_is_skipped(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa.png\n")
    assert open_images(tmp_path / "list.txt").items == (tmp_path / "a.png",)


def test_a_list_with_labels_for_some_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\t0\nb.png\nc.png\t1\n")
    with pytest.raises(ImageError, match=r"gives 2 of 3 images a label, and b.png none; allowed: a label behind a tab"):
        open_images(tmp_path / "list.txt")
