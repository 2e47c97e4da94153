"""Refuses options that a builder or a machine does not have, before any work is done."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from eightfold.errors import BuildError, UsageError
from eightfold.export.target_names import EngineTarget
from eightfold.export.tensorrt.configure import builder_flags
from eightfold.export.tensorrt.generation import Generation
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.runtime.backends.cuda_memory import cuda_driver_absent

if TYPE_CHECKING:
    from tensorrt import Builder

# Option -> what TensorRT-RTX says to it, tried with 1.7.1: docs.nvidia.com/deeplearning/tensorrt-rtx/latest,
# "Engine Compatibility" and "CPU-Only AOT", and the builder's own messages.
LACKING_IN_RTX = {
    "version_compatible": ("version-compatible engines", "build again for each release"),
    "hardware_compatible": ("hardware compatibility levels", "name the GPUs in the target: rtx:sm86,sm89"),
    "timing_cache": ("timing cache: it measures no kernels while it builds", "leave it out"),
    "device": ("choice of a GPU to build on: it builds for those that the target names", "leave it out"),
}
PRODUCTS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


def require_available(trt: ModuleType, generation: Generation, precision: str, options: BuildOptions) -> None:
    """Raises BuildError for an option that the installed TensorRT lacks, or has in its API and does not support."""
    if generation.module == "tensorrt_rtx":
        _require_of_rtx(_product(trt), options)
        _require_gpu_for_refit(options)
    for flag in builder_flags(generation, precision, options):
        _require_name(trt, trt.BuilderFlag, flag)
    for source in options.tactic_sources or ():
        _require_name(trt, trt.TacticSource, source)
    if options.optimization_level is not None:
        _require_name(trt, trt.IBuilderConfig, "builder_optimization_level")
    if options.hardware_compatible:
        _require_name(trt, trt.IBuilderConfig, "hardware_compatibility_level")
    _require_types_from_options(trt, generation, precision, options)


def require_takable_by(target: EngineTarget, options: BuildOptions) -> None:
    """Raises BuildError or UsageError for an option that no builder for `target` takes, without asking one."""
    if target.family == "rtx":
        _require_of_rtx("TensorRT-RTX", options)
        if options.dla_core is not None:
            raise UsageError(f"DLA core {options.dla_core} for {target.name}", allowed="tensorrt-dla")
    require_sense(options if not target.dla or options.dla_core is not None else with_dla(options))


def with_dla(options: BuildOptions) -> BuildOptions:
    """For a target that names the accelerator: the first core."""
    return options.model_copy(update={"dla_core": 0})


def require_sense(options: BuildOptions) -> None:
    """Raises UsageError for an option that would change nothing without another."""
    if options.precision_constraints != "obey" and not options.float_layers:
        raise UsageError("precision constraints without layers to keep in float", allowed="both: float_layers")
    if not options.gpu_fallback and options.dla_core is None:
        raise UsageError("no fallback to the GPU without an accelerator", allowed="both: dla_core")


def _require_of_rtx(product: str, options: BuildOptions) -> None:
    for option, (what, remedy) in LACKING_IN_RTX.items():
        if getattr(options, option):
            raise BuildError(f"{product} has no {what}", remedy=remedy)


def _require_gpu_for_refit(options: BuildOptions) -> None:
    if (options.refittable or options.strip_weights) and (absent := cuda_driver_absent()):
        raise BuildError(
            f"TensorRT-RTX compiles refittable engines on a GPU, and {absent}",
            allowed="engines with fixed weights on a machine without a GPU",
            remedy="build it on a machine with a GPU, or leave the option out",
        )


def _require_name(trt: ModuleType, holder: Any, name: str) -> None:
    if not hasattr(holder, name):
        raise BuildError(
            f"{_product(trt)} has no {name}",
            allowed="options of the installed version: docs/engines.md",
            remedy="leave the option out",
        )


def _product(trt: ModuleType) -> str:
    return f"{PRODUCTS[trt.__name__]} {trt.__version__}"


def _require_types_from_options(trt: ModuleType, generation: Generation, precision: str, options: BuildOptions) -> None:
    if options.precision_constraints == "prefer" and generation.strongly_typed:
        raise BuildError(
            f"{_product(trt)} takes types from the graph, and always obeys them",
            allowed="prefer with TensorRT before 10.12, or with ranges before 11",
            remedy="leave it out",
        )
    if options.has_ranges and precision == "int8" and not generation.ranges:
        raise BuildError(
            f"{_product(trt)} takes INT8 ranges from Q/DQ nodes only",
            allowed="ranges and calibration caches with TensorRT before 11",
            remedy="quantize the graph first with ef.quantize(..., target='tensorrt')",
        )


def require_dla(builder: Builder, options: BuildOptions) -> None:
    """Raises UsageError where there is no such accelerator."""
    if options.dla_core is not None and options.dla_core >= builder.num_DLA_cores:
        count = builder.num_DLA_cores
        raise UsageError(
            f"DLA core {options.dla_core}",
            allowed=f"0 to {count - 1}" if count else "none: this device, or this version of TensorRT, has no DLA",
        )


def require_int8(builder: Builder, precision: str) -> None:
    """Raises BuildError where the GPU has no INT8 arithmetic, as far as the builder tells: before 11."""
    if precision == "int8" and not getattr(builder, "platform_has_fast_int8", True):
        raise BuildError(
            "this GPU has no INT8 arithmetic",
            allowed="fp16 and fp32",
            remedy="build with --precision fp16 from the FP32 graph",
        )
