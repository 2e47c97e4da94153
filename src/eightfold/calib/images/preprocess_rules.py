"""Fields of `Preprocess`, and their checks. `geometry.py` and `transform.py` read them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from typing_extensions import Self

from eightfold.calib.images.normalization import normalization_fault
from eightfold.errors import EightfoldError, UsageError
from eightfold.values import Value

LARGEST_SIDE = 1 << 16  # in pixels
MOST_CHANNELS = 512
CHANNELS_OF = {"rgb": 3, "bgr": 3, "grey": 1}  # colour order -> channels
LARGEST_PIXEL = {"uint8": 255, "uint16": 65535}


class PreprocessRules(Value):
    """The rules of one model's preprocessing; `Preprocess` carries them out."""

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
        """True if images keep the channels that their files have."""
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


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """`values` that are all equal stand for any number of channels."""
    return values if len(values) == channels else values[:1] * channels
