"""Differences between the generations of TensorRT's API that matter to a build; everything else is common to all.

The facts are those of the bindings' sources, recorded for each version in tests/export/tensorrt/surfaces.json, and of
their binaries, in wheels.json beside it.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from eightfold.errors import BuildError
from eightfold.export.target_names import EngineTarget

Module = Literal["tensorrt", "tensorrt_rtx"]
LOWEST_VERSION = (8, 2)


@dataclasses.dataclass(frozen=True)
class Generation:
    """Attributes:

    module: the Python module.
    strongly_typed: types come from the graph; there are no precision flags to set. Possible from 10.0 on and
        reliable from 10.12 on; the only way in 11 and RTX.
    explicit_batch: networks have to be created with the EXPLICIT_BATCH flag (before 10).
    memory_pools: the workspace is a pool (from 8.4), not `max_workspace_size`.
    ranges: INT8 ranges can be set without Q/DQ nodes: calibrators and per-tensor dynamic ranges (before 11).
    compute_capabilities: builds for a GPU that is not there, by its compute capability (RTX).
    """

    module: Module
    strongly_typed: bool
    explicit_batch: bool = False
    memory_pools: bool = True
    ranges: bool = False
    compute_capabilities: bool = False


def generation_of(module: Module, version: str) -> Generation:
    """
    >>> generation_of("tensorrt", "8.2.1.9").memory_pools
    False
    >>> generation_of("tensorrt", "10.13.3").strongly_typed
    True

    Raises:
        BuildError: the version is older than any that is known.
    """
    if module == "tensorrt_rtx":
        return Generation("tensorrt_rtx", strongly_typed=True, compute_capabilities=True)
    number = version_numbers(version)
    if number < LOWEST_VERSION:
        raise BuildError(f"TensorRT {version} is installed", allowed="8.2 and later", remedy="update JetPack to 4.6.1")
    return Generation(
        "tensorrt",
        strongly_typed=number >= (10, 12),
        explicit_batch=number < (10, 0),
        memory_pools=number >= (8, 4),
        ranges=number < (11, 0),
    )


def require_version(target: EngineTarget, version: str) -> None:
    """Raises BuildError unless the installed version is the one that the target names."""
    if version_numbers(version)[: len(target.version)] != target.version:
        wanted = ".".join(map(str, target.version))
        raise BuildError(
            f"TensorRT {version} is installed, the target names {wanted}",
            allowed="the same version",
            remedy=f"build on the device, or name the target tensorrt:{'.'.join(version.split('.')[:2])}",
        )


def version_numbers(version: str) -> tuple[int, int]:
    """(major, minor)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
