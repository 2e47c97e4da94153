"""`Preprocess`: the one definition of how an image becomes a tensor, for training evaluation, calibration and every
runtime. This file holds the value; `transform.py`, `resize.py` and `geometry.py` beside it carry it out."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from eightfold.calib.images.geometry import Placement, place
from eightfold.calib.images.transform import Tensor, reference_tensor_from_image, tensor_from_image
from eightfold.errors import EightfoldError, UsageError
from eightfold.values import Value, first_fault

LARGEST_SIDE = 1 << 16  # in pixels


class Preprocess(Value):
    """How an image becomes one row of the model's input.

    The tensor is `(pixel * scale - mean) / std` per channel, in `color` order. With `dtype="uint8"` it holds the pixels
    themselves, and the graph is expected to scale them. The exact steps: head of `calib/images/transform.py`.

    >>> import numpy as np
    >>> preprocess = Preprocess(height=32, width=32, resize="letterbox", mean=(0.5,), std=(0.5,))
    >>> preprocess(np.zeros((10, 20, 3), np.uint8)).shape
    (3, 32, 32)
    >>> preprocess.place(10, 20).boxes_to_image([[0, 8, 16, 24]])
    array([[ 0.,  0., 10., 10.]])
    """

    kind: ClassVar[str] = "preprocess"
    error: ClassVar[type[EightfoldError]] = UsageError

    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    resize: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    interpolation: Literal["bilinear", "area", "bicubic"] = "bilinear"
    antialias: bool = False
    anchor: Literal["center", "top-left"] = Field(default="center", description="where a letterbox puts the image")
    pad_value: int = Field(default=114, ge=0, le=255)
    shorter_side: int | None = Field(
        default=None, ge=1, le=LARGEST_SIDE, description="center-crop: resize the shorter side to this"
    )
    color: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    @property
    def means(self) -> tuple[float, ...]:
        """`mean`, one entry per channel."""
        return _per_channel(self.mean, self.channels)

    @property
    def stds(self) -> tuple[float, ...]:
        """`std`, one entry per channel."""
        return _per_channel(self.std, self.channels)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels) and len(set(values)) > 1:
                raise ValueError(f"{name} has {len(values)} entries; allowed: 1 or {self.channels}, for {self.color}")
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))):
            raise ValueError("scale, mean or std is infinite or no number; allowed: finite numbers")
        if not self.mean or not self.std or any(value <= 0 for value in self.std):
            raise ValueError(f"std is {self.std}; allowed: positive numbers")
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError(f"shorter_side {self.shorter_side} is smaller than the crop {self.width}x{self.height}")
        return self

    def __call__(self, image: npt.ArrayLike, out: Tensor | None = None) -> Tensor:
        """One image -> one row of the model's input (no batch axis).

        Uses OpenCV where it is installed (within one level of the reference before scaling), the reference otherwise.

        Args:
            image: (H, W, 3) uint8 RGB; also (H, W), (H, W, 1) grey and (H, W, 4) RGBA, whose alpha is dropped.
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
        """Where an image of this size lands in the tensor; it maps boxes, points and masks back."""
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
        return (
            f"{self.resize} to {self.width}x{self.height} ({self.interpolation}), {self.color}, "
            f"{self._describe_values()}, {self.layout} {self.dtype}"
        )

    def _describe_values(self) -> str:
        scale = "pixel / 255" if math.isclose(self.scale, 1 / 255) else f"pixel * {self.scale:.6g}"
        if not any(self.mean) and set(self.std) == {1.0}:
            return scale
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"({scale} - [{mean}]) / [{std}]"


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """`values` that are all equal stand for any number of channels."""
    return values if len(values) == channels else values[:1] * channels
