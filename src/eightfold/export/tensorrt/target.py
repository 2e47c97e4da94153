"""What a TensorRT engine is built for, parsed from a target's name: 'rtx:sm86', 'tensorrt', 'tensorrt:10.3'."""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from eightfold.errors import UnknownNameError

EXAMPLES = ("rtx:sm86", "tensorrt", "tensorrt:8.2", "tensorrt:10.3", "tensorrt:11", "tensorrt-dla")


@dataclasses.dataclass(frozen=True)
class EngineTarget:
    """Attributes:

    family: "rtx" for TensorRT-RTX, "tensorrt" for TensorRT.
    version: (major, minor) that the installed TensorRT must have, as far as it was named; () for any.
    compute_capability: e.g. (8, 6), for RTX, which builds for a GPU that need not be there; else None.
    dla: whether layers go to a deep learning accelerator where they can.
    name: as it was written.
    """

    family: Literal["rtx", "tensorrt"]
    version: tuple[int, ...] = ()
    compute_capability: tuple[int, int] | None = None
    dla: bool = False
    name: str = ""


def parse_target(name: str) -> EngineTarget:
    """
    >>> parse_target("rtx:sm86").compute_capability
    (8, 6)
    >>> parse_target("tensorrt:10.3").version
    (10, 3)

    Raises:
        UnknownNameError: not a TensorRT target.
    """
    if found := re.fullmatch(r"rtx:sm(\d+)(\d)", name):
        return EngineTarget("rtx", compute_capability=(int(found[1]), int(found[2])), name=name)
    if found := re.fullmatch(r"tensorrt(-dla)?(?::(\d+)(?:\.(\d+))?)?", name):
        version = tuple(int(part) for part in found.groups()[1:] if part is not None)
        return EngineTarget("tensorrt", version=version, dla=found[1] is not None, name=name)
    raise UnknownNameError.of("engine target", name, EXAMPLES)
