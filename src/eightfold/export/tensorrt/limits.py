"""What a builder or a machine cannot be asked for, said before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.errors import BuildError, UsageError
from eightfold.export.tensorrt.generation import Generation
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.runtime.cuda_memory import cuda_driver_absent

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


def require_available(generation: Generation, version: str, options: BuildOptions) -> None:
    """Raises BuildError for an option that TensorRT-RTX has in its API and does not support."""
    if generation.module != "tensorrt_rtx":
        return
    for option, (what, remedy) in LACKING_IN_RTX.items():
        if getattr(options, option):
            raise BuildError(f"TensorRT-RTX {version} has no {what}", remedy=remedy)
    if (options.refittable or options.strip_weights) and (absent := cuda_driver_absent()):
        raise BuildError(
            f"TensorRT-RTX compiles refittable engines on a GPU, and {absent}",
            allowed="engines with fixed weights on a machine without a GPU",
            remedy="build it on a machine with a GPU, or leave the option out",
        )


def require_dla(builder: Builder, options: BuildOptions) -> None:
    """Raises UsageError where there is no such accelerator."""
    if options.dla_core is not None and options.dla_core >= builder.num_DLA_cores:
        count = builder.num_DLA_cores
        raise UsageError(
            f"DLA core {options.dla_core}",
            allowed=f"0 to {count - 1}" if count else "none: this device, or this version of TensorRT, has no DLA",
        )
