"""Parses the targets that have versions or GPUs: 'rtx:sm86', 'tensorrt', 'tensorrt:10.3', 'tensorrt-dla'. Graphs and
engines follow this one rule, so that no graph is made for a target whose engine nothing builds."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from eightfold.errors import UnknownNameError, UsageError

FAMILIES = ("rtx", "tensorrt", "tensorrt-dla")
# Major versions of TensorRT that boards have; what a later one reads nobody knows yet.
OLDEST, NEWEST = 8, 11
# `ComputeCapability` of TensorRT-RTX 1.7; an older one may lack some.
RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
# GPUs of boards, for which TensorRT-RTX builds nothing: https://developer.nvidia.com/cuda-gpus
BOARDS = {(5, 3): "Nano", (6, 2): "TX2", (7, 2): "Xavier", (8, 7): "Orin", (10, 1): "Thor", (11, 0): "Thor"}
ON_THE_BOARD = (
    "such engines are built on the board itself: there run `eightfold build MODEL --target tensorrt`, or the program "
    "eightfold-build where Python is too old; see docs/jetson.md"
)
EXAMPLES = ("rtx:sm86", "rtx:sm86,sm89", "tensorrt", "tensorrt:8.2", "tensorrt:10.3", "tensorrt:11", "tensorrt-dla")


@dataclasses.dataclass(frozen=True)
class EngineTarget:
    """Attributes:

    family: "rtx" for TensorRT-RTX, "tensorrt" for TensorRT.
    version: (major, minor) that the installed TensorRT must have, as far as it was named; () for any.
    compute_capabilities: e.g. ((8, 6), (8, 9)), for RTX, which builds one engine for GPUs that need not be there.
    dla: whether layers go to a deep learning accelerator where they can.
    name: as it was written.
    """

    family: Literal["rtx", "tensorrt"]
    version: tuple[int, ...] = ()
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    dla: bool = False
    name: str = ""


def parse_target(name: str) -> EngineTarget:
    """
    >>> parse_target("rtx:sm86,sm120").compute_capabilities
    ((8, 6), (12, 0))
    >>> parse_target("tensorrt:10.3").version
    (10, 3)

    Raises:
        UnknownNameError: not a TensorRT target, or a version or GPU that does not exist.
        UsageError: TensorRT-RTX for the GPU of a Jetson.
    """
    family, colon, version = name.partition(":")
    if family == "rtx" and re.fullmatch(r"sm\d{2,3}(,sm\d{2,3})*", version):
        found = re.findall(r"(\d+)(\d)", version)
        capabilities = tuple(dict.fromkeys((int(major), int(minor)) for major, minor in found))  # each once
        _require_rtx(name, capabilities)
        return EngineTarget("rtx", compute_capabilities=capabilities, name=name)
    if family in ("tensorrt", "tensorrt-dla"):
        numbers = _version(name, version) if colon else ()
        return EngineTarget("tensorrt", version=numbers, dla=family.endswith("-dla"), name=name)
    raise UnknownNameError.of("engine target", name, EXAMPLES)


def _require_rtx(name: str, capabilities: tuple[tuple[int, int], ...]) -> None:
    for major, minor in capabilities:
        if board := BOARDS.get((major, minor)):
            raise UsageError(
                f"{name} names the GPU of a Jetson {board}, for which TensorRT-RTX builds no engines",
                allowed="rtx:smXY of a GPU from sm75 on that is no Jetson's",
                remedy=f"the target of its graphs is tensorrt:VERSION, as in tensorrt:10.3; {ON_THE_BOARD}",
            )
        if (major, minor) not in RTX_CAPABILITIES:
            known = [f"SM{major}{minor}" for major, minor in RTX_CAPABILITIES]
            raise UnknownNameError.of("compute capability", f"SM{major}{minor}", known)


def _version(name: str, version: str) -> tuple[int, ...]:
    """(major,) or (major, minor) of a TensorRT that exists; numbers behind them decide on nothing."""
    found = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3})(?:\.\d+)*)?", version)
    if found is None or not OLDEST <= int(found[1]) <= NEWEST:
        raise UnknownNameError(
            f"unknown target {name!r}",
            allowed=f"TensorRT {OLDEST} to {NEWEST}, as in tensorrt:8.2, tensorrt:10.3, tensorrt:{NEWEST}",
            remedy="name the version that the board has",
        )
    return tuple(int(part) for part in found.groups() if part is not None)
