"""`Preprocess`: the one definition of how an image becomes a tensor, for training evaluation, calibration and every
runtime. This file holds the value; `calib/resize.py` and its neighbours carry it out."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from eightfold.errors import EightfoldError, UsageError
from eightfold.values import Value


class Preprocess(Value):
    """How an image becomes one row of the model's input.

    The tensor is `(pixel * scale - mean) / std` per channel, in `color` order.
    """

    kind: ClassVar[str] = "preprocess"
    error: ClassVar[type[EightfoldError]] = UsageError

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    resize: Literal["stretch", "letterbox", "center-crop"] = "stretch"
    interpolation: Literal["bilinear", "area", "bicubic"] = "bilinear"
    antialias: bool = False
    anchor: Literal["center", "top-left"] = Field(default="center", description="where a letterbox puts the image")
    pad_value: int = Field(default=114, ge=0, le=255)
    shorter_side: int | None = Field(default=None, ge=1, description="center-crop: resize the shorter side to this")
    color: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    def describe(self) -> str:
        return (
            f"{self.resize} to {self.width}x{self.height} ({self.interpolation}), {self.color}, "
            f"(x * {self.scale:.6g} - {self.mean}) / {self.std}, {self.layout} {self.dtype}"
        )
