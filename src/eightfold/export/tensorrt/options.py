"""What can be asked of a build beside target and precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from eightfold.values import Frozen


class BuildOptions(Frozen):
    """Options of `build_engine`. Those that the installed version does not have are refused, not ignored.

    Attributes:
        workspace_bytes: limit of scratch memory; the builder's own when None.
        timing_cache: file that keeps measured kernel times between builds, for this device and version; made on
            first use, merged with what is there.
        optimization_level: 0 (fast build) to 5 (fast engine); the builder's own when None. From 8.6.
        tactic_sources: libraries to take kernels from, e.g. ("CUDNN",); the builder's own when None.
        device: number of the GPU to build on; the one that runs the engine must be like it. Not for RTX.
        dla_core: index of the deep learning accelerator to use.
        gpu_fallback: layers the accelerator cannot run go to the GPU, and are named in the record; otherwise they fail
            the build.
        version_compatible: the engine also runs on later versions of the same major. From 8.6. It holds machine code of
            the host, so a runtime has to be told that it may load it.
        hardware_compatible: the engine runs on every GPU from Ampere on. From 8.6; not on Jetson.
        refittable: weights can be replaced later; see `refit_engine`.
        strip_weights: leave weights out that `refit_engine` brings back. From 10.0. Without `refittable` those have to
            be the very same weights.
        precision_constraints: whether precisions set for `float_layers` are obeyed or merely preferred. Before 10.12.
        float_layers: layers that stay in float32 in an FP16 or INT8 engine.
        ranges: tensor name -> largest absolute value, such as `Ranges.thresholds`, for INT8 without Q/DQ nodes. Before
            11.
        calibration_cache: a calibration cache file to serve instead. Before 11.
    """

    workspace_bytes: int | None = Field(default=None, ge=1)
    timing_cache: Path | None = None
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    tactic_sources: tuple[str, ...] | None = None
    device: int = Field(default=0, ge=0)
    dla_core: int | None = Field(default=None, ge=0)
    gpu_fallback: bool = True
    version_compatible: bool = False
    hardware_compatible: bool = False
    refittable: bool = False
    strip_weights: bool = False
    precision_constraints: Literal["obey", "prefer"] = "obey"
    float_layers: tuple[str, ...] = ()
    ranges: Mapping[str, float] | None = None
    calibration_cache: Path | None = None
    inner_outputs: tuple[str, ...] = ()

    @property
    def has_ranges(self) -> bool:
        return self.ranges is not None or self.calibration_cache is not None

    def without_files(self) -> BuildOptions:
        """What a record keeps: names of files mean something on one machine only."""
        return self.model_copy(update={"timing_cache": None, "calibration_cache": None})
