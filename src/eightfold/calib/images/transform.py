"""Carry a `Preprocess` out: a float64 reference in numpy, and a fast path through OpenCV where it is installed.

The steps, in this order, are the definition that every runtime follows:
1. grey, if asked for: `(19595 R + 38470 G + 7471 B + 32768) >> 16` (Pillow's ITU-R 601-2 luma, exact in integers, of
   8 and of 16 bits); images taken "as-is" have the channels that they are stored with;
2. resize (`calib/images/resize.py`) to the size that `calib/images/geometry.py` gives, rounded to the pixels' type;
3. pad with `pad_value`, or crop;
4. reverse the channels for BGR;
5. look each pixel up in a table of 256 (uint16: 65536) entries per channel: `(v * scale - mean) / std` in float64,
   rounded to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement, place, shared_area
from eightfold.calib.images.preprocess_rules import PreprocessRules
from eightfold.calib.images.resize import Pixels, kernel_name, resize
from eightfold.errors import ImageError
from eightfold.extras import installed, require

Tensor = Array


def tensor_from_image(preprocess: PreprocessRules, image: npt.ArrayLike, out: Tensor | None = None) -> Tensor:
    """The fast path. See `Preprocess.__call__`."""
    return _carry_out(preprocess, image, out, fast=installed("cv2"))


def reference_tensor_from_image(preprocess: PreprocessRules, image: npt.ArrayLike) -> Tensor:
    """The definition itself, in float64. See `Preprocess.reference`."""
    return _carry_out(preprocess, image, None, fast=False)


def require_fit(preprocess: PreprocessRules, image: npt.ArrayLike, *, name: str) -> None:
    """Refuse an image of another type or other channels than `preprocess` takes. Raises ImageError, which names it."""
    try:
        _checked(preprocess, image)
    except ImageError as error:
        raise ImageError(f"{name}: {error.seen}", allowed=error.allowed, remedy=error.remedy) from None


def _carry_out(preprocess: PreprocessRules, image: npt.ArrayLike, out: Tensor | None, *, fast: bool) -> Tensor:
    pixels = _pixels_for(preprocess, image)
    placement = place(preprocess, *pixels.shape[:2])
    resized = _resized(preprocess, pixels, placement.resized, fast=fast)
    if out is None:
        out = np.empty(_shape(preprocess), preprocess.dtype)
    _normalize(preprocess, _placed(preprocess, resized, placement), out, fast=fast)
    return out


def _shape(preprocess: PreprocessRules) -> tuple[int, int, int]:
    size = (preprocess.height, preprocess.width)
    return (preprocess.channels, *size) if preprocess.layout == "nchw" else (*size, preprocess.channels)


def _placed(preprocess: PreprocessRules, resized: Pixels, placement: Placement) -> Pixels:
    """Padded or cropped to the tensor's size."""
    if (placement.resized, placement.offset) == (placement.tensor, (0, 0)):
        return resized
    in_tensor, in_image = shared_area(placement)
    canvas = np.full((*placement.tensor, resized.shape[2]), preprocess.pad_value, resized.dtype)
    canvas[in_tensor] = resized[in_image]
    return canvas


def _pixels_for(preprocess: PreprocessRules, image: npt.ArrayLike) -> Pixels:
    """(H, W, channels) in the type that `preprocess` takes, or ImageError."""
    pixels = _checked(preprocess, image)
    if preprocess.as_stored:
        return pixels
    return grey_of(pixels) if preprocess.color == "grey" else _three_channels(pixels)


def _checked(preprocess: PreprocessRules, image: npt.ArrayLike) -> Pixels:
    return _stored_channels(image, preprocess) if preprocess.as_stored else checked_pixels(image, preprocess.pixels)


def checked_pixels(image: npt.ArrayLike, dtype: str = "uint8") -> Pixels:
    """(H, W, C) of an image given as (H, W) or (H, W, 1 to 4) of the type `dtype`, or ImageError."""
    pixels = _of_type(np.asarray(image), dtype)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"an image of shape {pixels.shape} and type {pixels.dtype}",
            allowed=f"(height, width), (height, width, 1), (height, width, 3) RGB or (height, width, 4) RGBA, {dtype}",
            remedy="convert it first, or give the Preprocess its number of channels",
        )
    return _not_empty(pixels if pixels.ndim == 3 else pixels[..., None])


def _stored_channels(image: npt.ArrayLike, preprocess: PreprocessRules) -> Pixels:
    pixels = _of_type(np.asarray(image), preprocess.pixels)
    count = preprocess.channels
    pixels = pixels[..., None] if pixels.ndim == 2 and count == 1 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != count:
        first = pixels.ndim == 3 and pixels.shape[0] == count
        raise ImageError(
            f"an image of shape {pixels.shape} and type {pixels.dtype}",
            allowed=f"(height, width, {count}) {preprocess.pixels}, the channels of the Preprocess",
            remedy="move its first axis to the end: channels come last in images" if first else "convert it first",
        )
    return _not_empty(pixels)


def _of_type(pixels: Array, dtype: str) -> Pixels:
    if pixels.dtype == dtype:
        return pixels
    remedy = "convert it first"
    if pixels.dtype == np.uint16:
        remedy = (
            f"it has up to {int(pixels.max(initial=0))} a channel: give the Preprocess pixels: uint16 and the scale of "
            "its depth, such as 1/4095 or 1/65535"
        )
    elif dtype == "uint16" and pixels.dtype == np.uint8:
        remedy = "leave pixels: uint16 out of the Preprocess, or store all images with 16 bits"
    raise ImageError(
        f"an image of shape {pixels.shape} and type {pixels.dtype}",
        allowed=f"(height, width, channels) {dtype}",
        remedy=remedy,
    )


def _not_empty(pixels: Pixels) -> Pixels:
    if 0 in pixels.shape:
        raise ImageError(f"an image of zero size, shape {pixels.shape}", allowed="at least one pixel")
    return pixels


def _three_channels(pixels: Pixels) -> Pixels:
    """Grey is repeated, alpha is dropped, as image decoders do."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def grey_of(pixels: Pixels) -> Pixels:
    """(H, W, 1) luma of (H, W, C) pixels, of the same type."""
    if pixels.shape[2] == 1:
        return pixels
    luma = pixels[..., :3].astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 32768) >> 16).astype(pixels.dtype)[..., None]


def _resized(preprocess: PreprocessRules, pixels: Pixels, size: tuple[int, int], *, fast: bool) -> Pixels:
    if pixels.shape[:2] == size:
        return pixels
    grows = size[0] > pixels.shape[0] or size[1] > pixels.shape[1]
    kernel = kernel_name(preprocess.interpolation, preprocess.antialias, grows=grows)
    if fast and not kernel.endswith("-antialias"):  # OpenCV has no kernel that widens
        return _opencv_resize(pixels, size, kernel)
    return resize(pixels, *size, interpolation=preprocess.interpolation, antialias=preprocess.antialias)


def _opencv_resize(pixels: Pixels, size: tuple[int, int], kernel: str) -> Pixels:
    cv2 = require("cv2", "resize images fast")
    flag = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}[kernel]
    # OpenCV takes four channels at a time where it filters, and drops a single channel's axis.
    parts = [pixels[..., start : start + 4] for start in range(0, pixels.shape[2], 4)]
    resized = [cv2.resize(np.ascontiguousarray(part), (size[1], size[0]), interpolation=flag) for part in parts]
    whole = [part if part.ndim == 3 else part[..., None] for part in resized]
    return whole[0] if len(whole) == 1 else np.concatenate(whole, axis=2)


def _normalize(preprocess: PreprocessRules, pixels: Pixels, out: Tensor, *, fast: bool) -> None:
    planes = out if preprocess.layout == "nchw" else out.transpose(2, 0, 1)
    channels = _channels(pixels, fast=fast)
    if preprocess.color == "bgr":
        channels = channels[::-1]
    if preprocess.dtype == "uint8":
        for plane, channel in zip(planes, channels, strict=True):
            plane[...] = channel
        return
    for plane, channel, entries in zip(planes, channels, normalization_table(preprocess), strict=True):
        if fast and plane.flags.c_contiguous and channel.dtype == np.uint8:
            require("cv2", "normalise images fast").LUT(channel, entries, dst=plane)
        else:
            plane[...] = entries[channel]


def _channels(pixels: Pixels, *, fast: bool) -> Sequence[Pixels]:
    if fast and pixels.shape[2] > 1:
        planes: Sequence[Pixels] = require("cv2", "split channels fast").split(pixels)
        return planes
    return [pixels[..., channel] for channel in range(pixels.shape[2])]


@lru_cache(maxsize=16)
def normalization_table(preprocess: PreprocessRules) -> npt.NDArray[np.float32]:
    """(channels, 256 or 65536) float32: what each pixel value becomes, computed in float64 and rounded once."""
    mean, std = (np.array(values, np.float64)[:, None] for values in (preprocess.means, preprocess.stds))
    table = ((np.arange(preprocess.largest_pixel + 1) * preprocess.scale - mean) / std).astype(np.float32)
    table.flags.writeable = False
    return table
