"""`Preprocess`: the one definition of how an image becomes a tensor, for training evaluation, calibration and every
runtime. This file holds the value; `transform.py`, `resize.py` and `geometry.py` beside it carry it out."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator
from typing_extensions import Self

from eightfold.calib.images.geometry import Placement, place
from eightfold.calib.images.normalization import normalization_fault
from eightfold.calib.images.transform import Tensor, reference_tensor_from_image, tensor_from_image
from eightfold.errors import EightfoldError, UsageError
from eightfold.values import Value, first_fault

LARGEST_SIDE = 1 << 16  # in pixels
MOST_CHANNELS = 512
CHANNELS_OF = {"rgb": 3, "bgr": 3, "grey": 1}  # colour order -> channels
LARGEST_PIXEL = {"uint8": 255, "uint16": 65535}


class Preprocess(Value):
    """How an image becomes one row of the model's input.

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

    kind: ClassVar[str] = "preprocess"
    error: ClassVar[type[EightfoldError]] = UsageError

    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    resize: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    interpolation: Literal["bilinear", "area", "bicubic"] = "bilinear"
    antialias: bool = False
    anchor: Literal["center", "top-left"] = Field(default="center", description="where a letterbox puts the image")
    pad_value: int = Field(default=114, ge=0, le=65535)
    shorter_side: int | None = Field(
        default=None, ge=1, le=LARGEST_SIDE, description="center-crop: resize the shorter side to this"
    )
    color: Literal["rgb", "bgr", "grey", "as-is"] = "rgb"
    channels: int = Field(
        default=3, ge=1, le=MOST_CHANNELS, description="of the tensor; 1 and 3 are grey and rgb, others are taken as-is"
    )
    pixels: Literal["uint8", "uint16"] = Field(
        default="uint8", description="type of the images' values; uint16 for images of 10 to 16 bits a channel"
    )
    scale: float = Field(default=1 / 255, description="1/65535 by default where `pixels` is uint16")
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def largest_pixel(self) -> int:
        """The largest value that a pixel can have."""
        return LARGEST_PIXEL[self.pixels]

    @property
    def as_stored(self) -> bool:
        """Whether images keep the channels that their files have."""
        return self.color == "as-is"

    @property
    def means(self) -> tuple[float, ...]:
        """`mean`, one entry per channel."""
        return _per_channel(self.mean, self.channels)

    @property
    def stds(self) -> tuple[float, ...]:
        """`std`, one entry per channel."""
        return _per_channel(self.std, self.channels)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Defaults that follow from other keys."""
        if not isinstance(data, dict):
            return data
        given = dict(data)
        channels = given.get("channels")
        if channels is not None and "color" not in given:
            given["color"] = {1: "grey", 3: "rgb"}.get(channels, "as-is") if type(channels) is int else "rgb"
        color = given.get("color")
        if channels is None and isinstance(color, str) and color in CHANNELS_OF:
            given["channels"] = CHANNELS_OF[color]
        if color == "as-is":
            given = {"mean": (0.0,), "std": (1.0,), **given}
        if given.get("pixels") == "uint16":
            given = {"scale": 1 / 65535, **given}
        return given

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_pixels()
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError(f"shorter_side {self.shorter_side} is smaller than the crop {self.width}x{self.height}")
        fault = normalization_fault(
            self.scale, self.mean, self.std, channels=self.channels, color=self.color, largest=self.largest_pixel
        )
        if fault:
            raise ValueError(fault)
        return self

    def _check_pixels(self) -> None:
        wanted = CHANNELS_OF.get(self.color)
        if wanted is not None and self.channels != wanted:
            raise ValueError(
                f"channels is {self.channels} and color {self.color}; allowed: {wanted} channels for {self.color}, "
                "or color as-is"
            )
        if wanted is None and "channels" not in self.model_fields_set:
            raise ValueError("color is as-is without channels; allowed: channels, how many there are")
        if self.pixels == "uint16" and self.dtype == "uint8":
            raise ValueError("dtype is uint8 and pixels uint16; allowed: dtype float32 for images of 16 bits")
        if self.pad_value > self.largest_pixel:
            raise ValueError(f"pad_value is {self.pad_value}; allowed: 0 to {self.largest_pixel}, for {self.pixels}")

    @model_serializer(mode="wrap")
    def _with_schema(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keys that came later are left out where they say nothing new: digests of older values stay as they were."""
        data = {"kind": self.kind, "schema": self.schema_number, **handler(self)}
        unneeded = (*(() if self.as_stored else ("channels",)), *(() if self.pixels == "uint16" else ("pixels",)))
        return {key: value for key, value in data.items() if key not in unneeded}

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


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """`values` that are all equal stand for any number of channels."""
    return values if len(values) == channels else values[:1] * channels
