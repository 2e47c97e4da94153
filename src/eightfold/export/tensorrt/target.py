"""Parses the target of a TensorRT engine: 'rtx:sm86', 'tensorrt', 'tensorrt:10.3'."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.targets import tensorrt_major

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
        UnknownNameError: not a TensorRT target, or a version that does not exist.
        UsageError: TensorRT-RTX for the GPU of a Jetson.
    """
    if re.fullmatch(r"rtx:sm\d{2,3}(,sm\d{2,3})*", name):
        numbers = re.findall(r"(\d+)(\d)", name)
        capabilities = dict.fromkeys((int(major), int(minor)) for major, minor in numbers)  # each once
        for major, minor in capabilities:
            if board := BOARDS.get((major, minor)):
                raise UsageError(
                    f"{name} names the GPU of a Jetson {board}, for which TensorRT-RTX builds no engines",
                    allowed="rtx:smXY of a GPU from sm75 on that is no Jetson's",
                    remedy=ON_THE_BOARD,
                )
        return EngineTarget("rtx", compute_capabilities=tuple(capabilities), name=name)
    if found := re.fullmatch(r"tensorrt(-dla)?(?::(\d+)(?:\.(\d+))?)?", name):
        version = tuple(int(part) for part in found.groups()[1:] if part is not None)
        if version:
            tensorrt_major(name, found[2])
        return EngineTarget("tensorrt", version=version, dla=found[1] is not None, name=name)
    raise UnknownNameError.of("engine target", name, EXAMPLES)
