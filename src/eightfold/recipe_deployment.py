"""The sections of a recipe from export to the limits that are checked: keys, their defaults and their checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from eightfold.calib.observers import METHODS
from eightfold.defaults import (
    BIAS_CORRECTION,
    CALIBRATION_IMAGES,
    CALIBRATION_METHOD,
    INT8_FORM,
    INT8_ROUNDING,
    INT8_TARGET,
)
from eightfold.errors import EightfoldError, RecipeError
from eightfold.export.target_names import parse_target
from eightfold.export.tensorrt.limits import require_takable_by
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.values import Frozen


class ExportSection(Frozen):
    """Fixed-size ONNX, simplified and compared with the torch module."""

    batches: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16), description="one graph for each")
    sizes: tuple[tuple[int, int], ...] = Field(
        default=(), description="further image sizes, [height, width] each, beside that of `preprocess`"
    )
    tolerance: float = Field(default=1e-4, gt=0, description="largest relative error a step may add")
    opset: int | None = Field(
        default=None,
        ge=13,
        description="ONNX opset; by default 17, or the newest that all targets read if that is older, "
        "or 18 where the network needs it",
    )
    preprocess: Literal["outside", "in-graph"] = Field(
        default="outside", description="`in-graph`: the networks take uint8 pixels (batch, height, width, channels)"
    )
    decode: bool = Field(
        default=False,
        description="to detect: the graphs put out final detections (batch, max_detections, 6), not the raw head",
    )


class CalibrateSection(Frozen):
    """Activation ranges, found once for all targets on training images."""

    images: int = Field(default=CALIBRATION_IMAGES, ge=1, description="training images, drawn evenly from the classes")
    method: str = Field(
        default=CALIBRATION_METHOD,
        description="method that turns observed values into a range: minmax, moving-average, percentile, entropy, mse",
    )

    @field_validator("method")
    @classmethod
    def _check_method(cls, value: str) -> str:
        if value not in METHODS:
            raise ValueError(f"no method {value!r}; allowed: {', '.join(METHODS)}")
        return value


class QuantizeSection(Frozen):
    """INT8 graphs, from the same ranges for each target."""

    targets: tuple[str, ...] = Field(default=(INT8_TARGET,), description="cpu-x86, cpu-arm, openvino, rtx:sm86, ...")
    form: Literal["qdq", "fastest"] = Field(
        default=INT8_FORM,
        description="`fastest` times Q/DQ, QOperator and FP32 for this machine's CPU and keeps the fastest",
    )
    weight_bits: Literal[7, 8] | None = Field(
        default=None, description="bits of INT8 weights; by default 7 where this machine's CPU lacks VNNI, else 8"
    )
    equalize: bool = Field(default=False, description="balance channels across layers before calibrating")
    rounding: Literal["nearest", "adaround"] = Field(
        default=INT8_ROUNDING, description="rounding of weights; adaround uses the calibration images"
    )
    bias_correction: Literal["none", "analytic", "empirical"] = Field(
        default=BIAS_CORRECTION, description="remove the mean error of rounding, on the calibration images"
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="largest loss of the metric in points on the calibration images, without labels of the agreement "
        "with the float graph; until it holds, layers return to float",
    )
    most_float: float = Field(
        default=1.0, ge=0, le=1, description="largest share of the layers that return to float for `max_drop`"
    )


# Options of a build that do not go with what a recipe makes.
NOT_FOR_RECIPES = {
    "strip_weights": "a bundle takes complete engines only",
    "inner_outputs": "a bundle's engines put out what its graphs do",
    "ranges": "INT8 engines are built from the graphs that quantize.targets names",
    "calibration_cache": "INT8 engines are built from the graphs that quantize.targets names",
}


class EnginesSection(Frozen):
    """Engines built on this machine: with TensorRT-RTX for a GPU that need not be here, with TensorRT for the one
    that is. TensorRT keeps the times of kernels in `timing.cache` in the run directory unless told otherwise."""

    target: str | tuple[str, ...] = Field(
        default="rtx:sm86", description="rtx:smXY, tensorrt, tensorrt:10.3, tensorrt-dla, ...; or a list of them"
    )
    precisions: tuple[Literal["fp16", "int8"], ...] = ("fp16", "int8")
    batches: tuple[int, ...] = Field(default=(1, 8), description="some of export.batches")
    options: BuildOptions = BuildOptions()

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target that engines are built for."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @model_validator(mode="after")
    def _check_options(self) -> EnginesSection:
        for name, reason in NOT_FOR_RECIPES.items():
            if getattr(self.options, name):
                allowed = ", ".join(each for each in BuildOptions.model_fields if each not in NOT_FOR_RECIPES)
                raise RecipeError(f"engines.options has {name}: {reason}", allowed=allowed, remedy="leave it out")
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise RecipeError(
                f"engines.target is {list(self.targets)}", allowed="one target, or several different ones"
            )
        try:
            for target in self.targets:
                require_takable_by(parse_target(target), self.options)
        except EightfoldError as error:
            raise RecipeError(f"engines: {error}") from None
        return self


class BenchSection(Frozen):
    """Latency on this machine, candidates taking turns."""

    threads: int = Field(default=2, ge=1, description="threads of the CPU back end")
    seconds_per_row: float = Field(default=3.0, gt=0, description="timed seconds for each candidate and batch size")
    backends: tuple[str, ...] = Field(
        default=(), description="back ends to measure: onnxruntime, openvino; by default every one that is installed"
    )


class LimitsSection(Frozen):
    """Promises that the run checks at its end. One that does not hold makes `eightfold run` end with exit code 1."""

    max_drop: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="largest loss of the leading metric of any artifact, in points",
    )
    min_speedup: float = Field(
        default=1.0, ge=0, allow_inf_nan=False, description="times as fast as the baseline, at every batch size"
    )
    allow_failed: bool = Field(default=False, description="exit with code 0 even if a limit is missed")
