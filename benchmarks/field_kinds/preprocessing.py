"""Images of other channels and depths, and normalizations that no training can have meant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from field_kinds import Case, kind, require

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IN_PIXELS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def made(**values: Any) -> Preprocess:
    """Validated as a file would be: in Python, pydantic's own error is another matter."""
    import json

    return Preprocess.from_json(json.dumps({"height": 8, "width": 8, **values}))


@kind("channels and depth", entry="13")
def channels_and_depth(random_state: Random) -> Iterator[Case]:
    for channels, dtype, layout, resize in product(
        (1, 2, 3, 4, 6, 13), ("uint8", "uint16"), ("nchw", "nhwc"), ("stretch", "letterbox", "center-crop")
    ):
        name = f"{channels} channels {dtype}, {layout}, {resize}"
        yield Case(name, _arrays(channels, dtype, layout, resize, random_state.randrange(1000)))
    for suffix, bits in product(("png", "tiff"), (10, 12, 16)):
        yield Case(f"{bits} bits, {suffix}, with the key", _deep(suffix, bits, key=True))
        yield Case(f"{bits} bits, {suffix}, without", _deep(suffix, bits, key=False), "refused", "pixels: uint16")


def _arrays(channels: int, dtype: str, layout: str, resize: str, seed: int) -> Any:
    def run(folder: Path) -> None:
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 4096 if dtype == "uint16" else 256, (8, 8, channels)).astype(dtype)
        np.save(folder / "a.npy", image)
        mean, std = rng.uniform(0.2, 0.6, channels), rng.uniform(0.1, 0.5, channels)
        scale = 1 / 4095 if dtype == "uint16" else 1 / 255
        values = {"mean": list(mean), "std": list(std), "scale": scale, "layout": layout, "resize": resize}
        preprocess = made(channels=channels, color="as-is", pixels=dtype, **values)
        (row,) = open_images(folder).prepared(preprocess)
        expected = ((image * scale - mean) / std).astype(np.float32)
        expected = expected if layout == "nhwc" else expected.transpose(2, 0, 1)
        require(bool(np.allclose(row, expected, atol=1e-6)), f"{np.abs(row - expected).max()} off")

    return run


def _deep(suffix: str, bits: int, *, key: bool) -> Any:
    def run(folder: Path) -> None:
        top = (1 << bits) - 1
        image = np.random.default_rng(bits).integers(0, top + 1, (8, 8, 3)).astype(np.uint16)
        image[0, 0] = top
        cv2.imwrite(str(folder / f"a.{suffix}"), image[..., ::-1])
        preprocess = made(scale=1 / top, **({"pixels": "uint16"} if key else {}))
        (row,) = open_images(folder).prepared(preprocess)
        require(bool(np.allclose(row, (image / top).transpose(2, 0, 1), atol=1e-6)), f"maximum {row.max()}")

    return run


@kind("normalizations", entry="B")
def normalizations(random_state: Random) -> Iterator[Case]:
    del random_state
    for color in ("rgb", "bgr"):
        yield Case(f"ImageNet, {color}", lambda folder, c=color: _makes(color=c, **IMAGENET))
        yield Case(f"ImageNet in pixels, {color}", lambda folder, c=color: _makes(color=c, scale=1, **IN_PIXELS))
        for name, values in (
            ("means of pixels and scale 1/255", IN_PIXELS),
            ("means of pixels alone", {"mean": IN_PIXELS["mean"]}),
            ("deviations of pixels alone", {"std": IN_PIXELS["std"]}),
            ("means of [0, 1] and scale 1", {"scale": 1, **IMAGENET}),
            ("scale 0", {"scale": 0}),
        ):
            yield Case(f"{name}, {color}", lambda folder, c=color, v=values: _makes(color=c, **v), "refused", "allowed")
        for count, key in product((2, 4, 6), ("mean", "std")):
            for values in ([0.5] * count, [0.1 + 0.1 * place for place in range(count)]):
                yield Case(
                    f"{count} entries of {key}, {color}",
                    lambda folder, c=color, k=key, v=values: _makes(color=c, **{k: v}),
                    "refused",
                    "1 or 3",
                )


def _makes(**values: Any) -> None:
    preprocess = made(**values)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    pixels = image[..., ::-1] if preprocess.color == "bgr" else image
    expected = (pixels * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    require(bool(np.allclose(preprocess(image), expected.transpose(2, 0, 1), atol=1e-5)), "another tensor")
