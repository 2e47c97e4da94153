"""`Preprocess`: the one definition of how an image becomes a tensor, for training evaluation, calibration and every
runtime. `preprocess_rules.py` holds its fields; `transform.py`, `resize.py` and `geometry.py` carry it out."""

from __future__ import annotations

import math

import numpy.typing as npt
from pydantic import ValidationError
from typing_extensions import Self

from eightfold.calib.images.geometry import Placement, place
from eightfold.calib.images.preprocess_rules import LARGEST_SIDE, PreprocessRules
from eightfold.calib.images.transform import Tensor, reference_tensor_from_image, tensor_from_image
from eightfold.errors import UsageError
from eightfold.values import first_fault


class Preprocess(PreprocessRules):
    """Turns an image into one row of the model's input.

    The tensor is `(pixel * scale - mean) / std` per channel, in `color` order. With `dtype="uint8"` it holds the pixels
    themselves, and the graph is expected to scale them. The exact steps: head of `calib/images/transform.py`.

    Images of other channels (RGB and depth, thermal, multispectral) have `channels=N`, which are taken as they are
    stored: `color` is "as-is". Images of 10 to 16 bits have `pixels="uint16"`, and `scale` is that of their own values
    (`1/4095` for 12 bits). In JSON, `channels` stands beside "as-is" only, and `pixels` where it is "uint16".

    >>> import numpy as np
    >>> preprocess = Preprocess(height=32, width=32, resize="letterbox", mean=(0.5,), std=(0.5,))
    >>> preprocess(np.zeros((10, 20, 3), np.uint8)).shape
    (3, 32, 32)
    >>> preprocess.place(10, 20).boxes_to_image([[0, 8, 16, 24]])
    array([[ 0.,  0., 10., 10.]])
    """

    def __call__(self, image: npt.ArrayLike, out: Tensor | None = None) -> Tensor:
        """One image -> one row of the model's input (no batch axis).

        Uses OpenCV where it is installed (within one level of the reference before scaling), the reference otherwise.

        Args:
            image: (H, W, 3) RGB of the type `pixels`; also (H, W), (H, W, 1) grey and (H, W, 4) RGBA, whose alpha is
                dropped. With `color="as-is"` (H, W, channels), or (H, W) for one.
            out: contiguous array of the result's shape and type to write into; a new one when None.

        Returns:
            `out`: (C, height, width) for nchw, (height, width, C) for nhwc; float32 or uint8 as `dtype` says.

        Raises:
            ImageError: another shape or type, or zero size.
        """
        return tensor_from_image(self, image, out)

    def reference(self, image: npt.ArrayLike) -> Tensor:
        """The same as a call, computed in float64 by numpy alone: the definition that every runtime is held to."""
        return reference_tensor_from_image(self, image)

    def place(self, height: int, width: int) -> Placement:
        """Placement of an image of this size in the tensor; it maps boxes, points and masks back."""
        return place(self, height, width)

    def at_size(self, height: int, width: int) -> Self:
        """The same rules for a tensor of another size.

        `shorter_side` of a center-crop grows with the larger side, rounded half up, so that the crop shows about the
        same part of an image.

        >>> Preprocess(height=224, width=224, resize="center-crop", shorter_side=256).at_size(160, 160).shorter_side
        183
        """
        if (height, width) == (self.height, self.width):
            return self
        sides = {"height": height, "width": width, "shorter_side": self._shorter_side_at(max(height, width))}
        try:
            return type(self).model_validate(self.model_dump() | sides)
        except ValidationError as error:
            raise UsageError(
                f"preprocessing for {height}x{width}: {first_fault(error)}", allowed=f"1 to {LARGEST_SIDE} pixels"
            ) from None

    def _shorter_side_at(self, largest: int) -> int | None:
        if self.shorter_side is None:
            return None
        own = max(self.height, self.width)
        return max(largest, (2 * self.shorter_side * largest + own) // (2 * own))

    def describe(self) -> str:
        color = f"{self.channels} channels {self.color}" if self.as_stored else self.color
        pixels = "" if self.pixels == "uint8" else f" {self.pixels}"
        return (
            f"{self.resize} to {self.width}x{self.height} ({self.interpolation}), {color}{pixels}, "
            f"{self._describe_values()}, {self.layout} {self.dtype}"
        )

    def _describe_values(self) -> str:
        close = next((largest for largest in (255, 65535) if math.isclose(self.scale, 1 / largest)), None)
        scale = f"pixel / {close}" if close else f"pixel * {self.scale:.6g}"
        if not any(self.mean) and set(self.std) == {1.0}:
            return scale
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"({scale} - [{mean}]) / [{std}]"
