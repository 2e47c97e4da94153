"""Options of a build beside target and precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from eightfold.values import Frozen


class BuildOptions(Frozen):
    """Options of `build_engine` and of a recipe's `engines`. What the installed version does not have is refused."""

    workspace_bytes: int | None = Field(
        default=None, ge=1, description="limit of scratch memory; else the builder's own"
    )
    timing_cache: Path | None = Field(
        default=None,
        description="file that keeps measured kernel times between builds, apart for each builder, version and device; "
        "made on first use, merged with what is there",
    )
    optimization_level: int | None = Field(
        default=None, ge=0, le=5, description="0 (fast build) to 5 (fast engine); else the builder's own; from 8.6"
    )
    tactic_sources: tuple[str, ...] | None = Field(
        default=None, description="libraries to take kernels from, such as CUDNN; else the builder's own"
    )
    device: int = Field(
        default=0, ge=0, description="GPU to build on; the one that runs the engine must be like it; not for RTX"
    )
    dla_core: int | None = Field(default=None, ge=0, description="deep learning accelerator to use")
    gpu_fallback: bool = Field(
        default=True,
        description="layers that the accelerator does not take go to the GPU and are named in the record; otherwise "
        "they fail the build",
    )
    version_compatible: bool = Field(
        default=False,
        description="also runs on later versions of the same major; holds machine code of the host, so that a runtime "
        "has to be told that it may load it; from 8.6",
    )
    hardware_compatible: bool = Field(
        default=False, description="runs on every GPU from Ampere on; from 8.6, not on Jetson"
    )
    refittable: bool = Field(default=False, description="weights can be replaced later: `refit_engine`")
    strip_weights: bool = Field(
        default=False,
        description="weights are left out until `refit_engine` brings them back: the very same, unless it is "
        "refittable; from 10.0",
    )
    precision_constraints: Literal["obey", "prefer"] = Field(
        default="obey", description="whether the types of `float_layers` are obeyed, or preferred, before 10.12"
    )
    float_layers: tuple[str, ...] = Field(
        default=(), description="layers, or nodes of the graph, that stay in float32 in an FP16 or INT8 engine"
    )
    ranges: Mapping[str, float] | None = Field(
        default=None,
        description="tensor -> largest absolute value, such as `Ranges.thresholds`, for INT8 without Q/DQ; before 11",
    )
    calibration_cache: Path | None = Field(default=None, description="the same in TensorRT's own file; before 11")
    inner_outputs: tuple[str, ...] = Field(
        default=(),
        description="tensors inside the graph that become outputs as well, to look at: less is fused around them",
    )

    @property
    def has_ranges(self) -> bool:
        """True if INT8 ranges are given, as values or as a calibration cache."""
        return self.ranges is not None or self.calibration_cache is not None

    def without_files(self) -> BuildOptions:
        """The options for a record: names of files mean something on one machine only."""
        return self.model_copy(update={"timing_cache": None, "calibration_cache": None})
