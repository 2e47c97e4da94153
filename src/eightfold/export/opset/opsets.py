"""Versions of ONNX's standard operator set that each target reads, as data. Every entry names its source; a version
between two entries has the rules of the older one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from eightfold.errors import UnknownNameError
from eightfold.export.target_names import FAMILIES, parse_target
from eightfold.export.targets import TARGETS, installed_tensorrt

# Has every operator of the networks we know; newer ones add none, and older runtimes read it.
DEFAULT_OPSET = 17


@dataclasses.dataclass(frozen=True)
class Reader:
    """The parser of ONNX for a family of targets, from one of its versions on.

    Args:
        family: the part of a target's name before the colon.
        since: (major, minor) version; (0, 0) where the family has none.
        opset: the newest operator set whose operators it knows.
        source: where that stands.
    """

    family: str
    since: tuple[int, int]
    opset: int
    source: str


_PARSER = "https://github.com/onnx/onnx-tensorrt/blob"

READERS = (
    Reader("tensorrt", (8, 0), 13, f"'up to Opset 13': {_PARSER}/release/8.2-GA/docs/operators.md"),
    Reader(
        "tensorrt",
        (8, 4),
        16,
        "'up to Opset 17', but without LayerNormalization, which is what networks would use of 17: "
        f"{_PARSER}/release/8.4-GA/docs/operators.md {_PARSER}/release/8.5-GA/docs/operators.md",
    ),
    Reader("tensorrt", (8, 6), 17, f"'up to Opset 17': {_PARSER}/release/8.6-GA/docs/operators.md"),
    Reader("tensorrt", (9, 0), 19, f"'up to Opset 19': {_PARSER}/9.0-GA/docs/operators.md"),
    Reader(
        "tensorrt",
        (10, 0),
        20,
        f"'opset 9 to opset 20': {_PARSER}/release/10.0-GA/docs/operators.md ; GroupNormalization 21 came with 10.9: "
        "https://github.com/NVIDIA/TensorRT/blob/release/10.9/CHANGELOG.md",
    ),
    Reader(
        "tensorrt",
        (10, 15),
        24,
        f"'opset 9 to opset 24': {_PARSER}/release/10.15-GA/docs/operators.md ; the same for 11: "
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html",
    ),
    Reader("rtx", (0, 0), 20, "TensorRT 10's parser; a graph of this opset is parsed and built in the tests"),
    Reader(
        "openvino",
        (0, 0),
        17,
        "the networks of the zoo are compiled at this opset in the tests; nobody lists newer ones",
    ),
    *(
        Reader(
            family,
            (0, 0),
            20,
            "onnxruntime 1.17, the oldest that `eightfold[cpu]` installs, was released with ONNX 1.15: "
            "https://onnxruntime.ai/docs/reference/compatibility.html",
        )
        for family in ("cpu-x86", "cpu-arm")
    ),
)


def opset_for(targets: Iterable[str]) -> int:
    """The opset to export with: 17, or the newest that all targets read where that is older.

    >>> opset_for(["tensorrt:8.2", "tensorrt:10.3"])
    13
    >>> opset_for([])
    17

    Raises:
        UnknownNameError: not a target.
    """
    return min([DEFAULT_OPSET, *(newest_opset(target) for target in targets)])


def opsets_for(targets: Iterable[str]) -> range:
    """The opset to export with, then those that will do where a network needs what came with a later one.

    >>> opsets_for(["tensorrt:8.2"]), opsets_for(["tensorrt:10.3"])
    (range(13, 14), range(17, 21))
    """
    wanted = list(targets)
    newest = min([max(reader.opset for reader in READERS), *(newest_opset(target) for target in wanted)])
    return range(opset_for(wanted), newest + 1)


def newest_opset(target: str) -> int:
    """The newest opset that a target reads.

    >>> newest_opset("tensorrt:10.3")
    20
    """
    family, number = family_and_version(target)
    if family in TARGETS and not any(reader.family == family for reader in READERS):
        return TARGETS[family].opset
    known = [reader for reader in READERS if reader.family == family and reader.since <= number]
    if not known:
        names = sorted({reader.family for reader in READERS} | {"tensorrt:8.2", "rtx:sm86", "tensorrt-dla"})
        raise UnknownNameError.of("target", target, names)
    return max(known, key=lambda reader: reader.since).opset


def family_and_version(target: str) -> tuple[str, tuple[int, int]]:
    """The family that reads a target's ONNX files, and its (major, minor) version where that matters; without a
    version, TensorRT's is the one installed, or 10.

    >>> family_and_version("tensorrt-dla:8.5")
    ('tensorrt', (8, 5))

    Raises:
        UnknownNameError: there is no such TensorRT or GPU.
        UsageError: TensorRT-RTX for the GPU of a Jetson.
    """
    family = target.partition(":")[0]
    if family not in FAMILIES:
        return family, (0, 0)
    engine = parse_target(target)
    if engine.family == "rtx":
        return "rtx", (0, 0)
    version = engine.version or parse_target(f"tensorrt:{installed_tensorrt() or 10}").version
    return "tensorrt", (version[0], version[1] if len(version) > 1 else 0)  # DLA has the same parser
