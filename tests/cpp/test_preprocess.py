"""Preprocessing in C++ gives the very bytes of the reference in Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Task
from tests.cpp.native import NativeEngine, NativeError

MakeBundle = Callable[..., Path]
TASK = Task(kind="classify", decode="classify")


def random_image(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Smooth in one half, noise in the other, as photographs are."""
    noise = random.integers(0, 256, shape, dtype=np.uint8)
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * 255 // (shape[0] + shape[1])
    noise[: shape[0] // 2] = ramp[: shape[0] // 2].reshape(-1, shape[1], *[1] * (len(shape) - 2))
    return noise


DEFINITIONS: list[dict[str, Any]] = [
    {"resize": "stretch"},
    {"resize": "letterbox", "color": "bgr"},
    {"resize": "letterbox", "anchor": "top-left", "pad_value": 7},
    {"resize": "center-crop", "shorter_side": 40},
    {"resize": "center-crop", "interpolation": "bicubic", "antialias": True},
    {"interpolation": "bicubic"},
    {"interpolation": "area"},
    {"interpolation": "area", "resize": "letterbox"},
    {"antialias": True, "shorter_side": 48, "resize": "center-crop"},
    {"color": "grey"},
    {"color": "grey", "interpolation": "area", "mean": (0.5,), "std": (0.25,)},
    {"layout": "nhwc", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    {"dtype": "uint8", "layout": "nhwc"},
    {"dtype": "uint8", "color": "bgr", "resize": "letterbox"},
    {"scale": 1.0, "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395), "color": "bgr"},
]
SIZES = [(32, 32), (64, 64), (480, 640), (17, 19), (33, 250), (250, 31), (1, 1), (2, 1), (1, 2), (3, 3), (97, 53)]


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda each: "-".join(map(str, each.values())))
def test_same_bytes_as_the_reference(library: ctypes.CDLL, make_bundle: MakeBundle, definition: dict[str, Any]) -> None:
    preprocess = Preprocess(**({"height": 32, "width": 36} | definition))
    engine = NativeEngine(library, make_bundle(preprocess, TASK, {"logits": (3,)}))
    random = np.random.default_rng(1)
    for height, width in SIZES:
        for channels, format in ((3, "rgb"), (3, "bgr"), (4, "rgba"), (4, "bgra"), (1, "grey")):
            if definition.get("resize") == "center-crop" and max(height, width) > 20 * min(height, width):
                continue
            pixels = random_image(random, (height, width, channels))
            rgb = pixels[..., [2, 1, 0, 3][:channels]] if "bgr" in format else pixels
            expected = preprocess.reference(rgb)
            actual = engine.preprocess(pixels, format).view(expected.dtype).reshape(expected.shape)
            np.testing.assert_array_equal(actual, expected, err_msg=f"{height}x{width} {format}")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("channels", "layout"), [(1, "nchw"), (2, "nhwc"), (3, "nchw"), (4, "nchw"), (6, "nhwc"), (13, "nchw")]
)
def test_images_of_other_channels(
    library: ctypes.CDLL, make_bundle: MakeBundle, channels: int, layout: Any, dtype: Any
) -> None:
    """Each of its own mean and deviation, of every kernel."""
    random = np.random.default_rng(3)
    spread = {"mean": tuple(np.linspace(0.1, 0.9, channels)), "std": tuple(np.linspace(0.2, 0.4, channels))}
    for rule in KERNELS:
        preprocess = Preprocess(
            height=32, width=36, color="as-is", channels=channels, pixels=dtype, layout=layout, **spread, **rule
        )
        engine = NativeEngine(library, make_bundle(preprocess, TASK, {"logits": (3,)}))
        for height, width in ((32, 36), (17, 19), (97, 53), (1, 2)):
            pixels = random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype=dtype)
            expected = preprocess.reference(pixels)
            actual = engine.preprocess(pixels, "stored").view(np.float32).reshape(expected.shape)
            np.testing.assert_array_equal(actual, expected, err_msg=f"{rule} {height}x{width}")


KERNELS: list[dict[str, Any]] = [
    {"resize": "letterbox", "pad_value": 7},
    {"interpolation": "area"},
    {"interpolation": "bicubic"},
    {"antialias": True},
]


@pytest.mark.parametrize(
    "definition", [{}, {"color": "bgr", "pad_value": 60000, "resize": "letterbox"}, {"color": "grey"}]
)
def test_pictures_of_sixteen_bits(library: ctypes.CDLL, make_bundle: MakeBundle, definition: dict[str, Any]) -> None:
    preprocess = Preprocess(height=32, width=36, pixels="uint16", **definition)
    engine = NativeEngine(library, make_bundle(preprocess, TASK, {"logits": (3,)}))
    random = np.random.default_rng(4)
    for channels, format in ((3, "rgb"), (3, "bgr"), (4, "rgba"), (4, "bgra"), (1, "grey")):
        pixels = random.integers(0, 65536, (45, 31, channels), dtype=np.uint16)
        rgb = pixels[..., [2, 1, 0, 3][:channels]] if "bgr" in format else pixels
        expected = preprocess.reference(rgb)
        actual = engine.preprocess(pixels, format).view(np.float32).reshape(expected.shape)
        np.testing.assert_array_equal(actual, expected, err_msg=format)


@pytest.mark.parametrize(
    ("definition", "pixels", "format", "message"),
    [
        ({}, np.zeros((4, 4, 3), np.uint16), "rgb", r"type uint16; allowed: uint8, .* pixels: uint16"),
        ({"pixels": "uint16"}, np.zeros((4, 4, 3), np.uint8), "rgb", r"type uint8; allowed: uint16"),
        ({"channels": 6}, np.zeros((4, 4, 5), np.uint8), "stored", r"5 channels; allowed: 6, as the preprocessing"),
        ({"channels": 6}, np.zeros((4, 4, 3), np.uint8), "rgb", r"3 channels; allowed: 6"),
        ({}, np.zeros((4, 4, 2), np.uint8), "stored", r"2 channels; allowed: grey, RGB or RGBA"),
    ],
)
def test_images_of_another_kind_than_the_bundle_takes(
    library: ctypes.CDLL,
    make_bundle: MakeBundle,
    definition: dict[str, Any],
    pixels: NDArray[Any],
    format: str,
    message: str,
) -> None:
    preprocess = Preprocess(**{"height": 32, "width": 32} | definition)
    engine = NativeEngine(library, make_bundle(preprocess, TASK, {"logits": (3,)}))
    with pytest.raises(NativeError, match=message) as caught:
        engine.preprocess(pixels, format)
    assert caught.value.status == "image"


def test_a_part_of_a_wider_image(library: ctypes.CDLL, make_bundle: MakeBundle) -> None:
    preprocess = Preprocess(height=32, width=32)
    engine = NativeEngine(library, make_bundle(preprocess, TASK, {"logits": (3,)}))
    whole = random_image(np.random.default_rng(2), (100, 120, 3))
    part = whole[10:70, 20:90]
    actual = engine.preprocess(part).view(np.float32).reshape(3, 32, 32)
    np.testing.assert_array_equal(actual, preprocess.reference(part))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 4, 3), "zero size"), ((4, 0, 3), "zero size"), ((1, 70000, 3), "at most 65536")],
)
def test_images_that_cannot_be_used(
    library: ctypes.CDLL, make_bundle: MakeBundle, shape: tuple[int, ...], message: str
) -> None:
    engine = NativeEngine(library, make_bundle(Preprocess(height=32, width=32), TASK, {"logits": (3,)}))
    with pytest.raises(NativeError, match=message) as caught:
        engine.preprocess(np.zeros(shape, np.uint8))
    assert caught.value.status == "image"
