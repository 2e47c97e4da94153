"""The reference against independent implementations (OpenCV, torchvision, ultralytics), the fast path against it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.images.resize import resize
from eightfold.calib.images.transform import checked_pixels, grey_of
from eightfold.errors import ImageError

SIZES = [(37, 53, 24, 24), (20, 30, 41, 64), (48, 64, 24, 32), (31, 17, 31, 40)]


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> Any:
    """Smooth shapes with noise: neither flat nor white."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, channels)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(smooth.astype(int) + random.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


def levels_apart(a: Any, b: Any) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("name", "flag"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
def test_reference_resize_is_opencv_within_one_level(size: tuple[int, ...], name: str, flag: int) -> None:
    image = photo(*size[:2])
    mine = resize(image, *size[2:], interpolation=name)
    assert levels_apart(mine, cv2.resize(image, (size[3], size[2]), interpolation=flag)) <= 1


@pytest.mark.parametrize("size", [(37, 53, 24, 24), (48, 64, 24, 32)])
def test_reference_area_is_opencv_when_both_axes_shrink(size: tuple[int, ...]) -> None:
    image = photo(*size[:2])
    mine = resize(image, *size[2:], interpolation="area")
    assert levels_apart(mine, cv2.resize(image, (size[3], size[2]), interpolation=cv2.INTER_AREA)) <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_reference_antialias_is_torchvision(size: tuple[int, ...], name: str) -> None:
    image = photo(*size[:2])
    # In float: on uint8, torchvision clips what bicubic overshoots between the two axes as well.
    tensor = torch.from_numpy(image).permute(2, 0, 1).double()
    theirs = tv.resize(tensor, list(size[2:]), interpolation=InterpolationMode(name), antialias=True)
    mine = resize(image, *size[2:], interpolation=name, antialias=True)
    assert levels_apart(mine, theirs.permute(1, 2, 0).numpy().round().clip(0, 255)) <= 1


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (33, 33), (19, 71), (300, 10)])
@pytest.mark.parametrize("anchor", ["center", "top-left"])
def test_letterbox_is_ultralytics(height: int, width: int, anchor: str) -> None:
    from ultralytics.data.augment import LetterBox

    image = photo(height, width)
    theirs = LetterBox((48, 64), auto=False, center=anchor == "center")(image=image)
    preprocess = Preprocess(height=48, width=64, resize="letterbox", anchor=anchor, layout="nhwc", dtype="uint8")
    np.testing.assert_array_equal(preprocess(image), theirs)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (33, 33), (51, 71)])
def test_center_crop_is_torchvision(height: int, width: int) -> None:
    image = photo(height, width)
    tensor = tv.to_dtype(torch.from_numpy(image).permute(2, 0, 1), torch.uint8)
    theirs = tv.center_crop(tv.resize(tensor, [36], antialias=True), [32, 32])
    preprocess = Preprocess(
        height=32, width=32, resize="center-crop", shorter_side=36, antialias=True, layout="nhwc", dtype="uint8"
    )
    assert levels_apart(preprocess(image), theirs.permute(1, 2, 0).numpy()) <= 1


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 3, 4])),
    rule=st.sampled_from(["stretch", "letterbox", "center-crop"]),
    interpolation=st.sampled_from(["bilinear", "area", "bicubic"]),
    color=st.sampled_from(["rgb", "bgr", "grey"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
)
def test_fast_path_is_within_one_level_of_the_reference(
    shape: tuple[int, int, int], rule: Any, interpolation: Any, color: Any, layout: Any
) -> None:
    preprocess = Preprocess(
        height=24, width=32, resize=rule, interpolation=interpolation, color=color, layout=layout, scale=1.0
    )
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    fast, reference = preprocess(image), preprocess.reference(image)
    assert fast.shape == reference.shape
    assert fast.dtype == reference.dtype == np.float32
    assert np.abs(fast - reference).max() <= 1


def test_scaling_is_done_in_float64_and_rounded_once() -> None:
    preprocess = Preprocess(height=1, width=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), color="bgr")
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((np.arange(256)[:, None] / 255 - mean) / std).astype(np.float32).T[:, None]
    np.testing.assert_allclose(preprocess(ramp), expected, rtol=2e-7, atol=1e-9)


def test_bgr_reverses_the_channels_after_everything_else() -> None:
    image = photo(8, 8)
    rgb, bgr = (Preprocess(height=8, width=8, color=color, scale=1.0)(image) for color in ("rgb", "bgr"))
    np.testing.assert_array_equal(rgb[::-1], bgr)


def test_grey_is_pillows_luma() -> None:
    from PIL import Image

    image = photo(9, 11)
    np.testing.assert_array_equal(grey_of(image)[..., 0], np.asarray(Image.fromarray(image).convert("L")))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32.*uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "zero size"),
    ],
)
def test_what_is_not_an_image_is_refused(image: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        checked_pixels(image)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "grey"])
def test_a_given_array_is_written_in_place(layout: str, dtype: str, color: str) -> None:
    how = {"height": 24, "width": 32, "resize": "letterbox", "layout": layout, "dtype": dtype, "color": color}
    preprocess = Preprocess.model_validate(how)
    image = photo(40, 31)
    new = preprocess(image)
    batch = np.full((3, *new.shape), 99, new.dtype)
    assert preprocess(image, batch[1]).base is batch
    np.testing.assert_array_equal(batch[1], new)
    assert (batch[[0, 2]] == 99).all()
