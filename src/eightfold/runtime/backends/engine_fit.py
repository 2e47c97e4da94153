"""Requirements of an engine on a machine, as manifests and sidecars state them, and a check of this machine.

A requirement is one or more alternatives parted by commas. Each is one or more conditions parted by blanks, all of
which have to hold: a plain version ("10.3.0": the numbers that both sides have must agree), ">=8.0" or "<11". The C++
runtime reads the same (engine_fit.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Collection

# Engines that were built to be version-compatible run on later versions of their major, and of one other:
# https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/getting-started/support-matrix.html, "Engine Portability".
RUNS_BEFORE = {8: 11, 10: 12}
# What HardwareCompatibilityLevel.AMPERE_PLUS means (NvInfer.h).
AMPERE_AND_LATER = ">=8.0"


def engine_requirements(builder: str, version: str, capability: str, flags: Collection[str]) -> dict[str, str]:
    """Requirements of an engine, by name.

    Args:
        builder: the module that built it, "tensorrt" or "tensorrt_rtx".
        version: of the builder.
        capability: compute capabilities it was built for, such as "8.6" or "8.6,8.9"; "" where that is not known.
        flags: what was set for the build; "VERSION_COMPATIBLE" and "AMPERE_PLUS" widen where it runs.

    >>> engine_requirements("tensorrt", "10.3.0", "8.7", ["VERSION_COMPATIBLE", "AMPERE_PLUS"])
    {'tensorrt': '>=10.3.0 <12', 'compute_capability': '>=8.0'}
    """
    needs = {builder: _later_versions(version) if holds_host_code(flags) else version}
    if "AMPERE_PLUS" in flags:
        capability = AMPERE_AND_LATER
    return needs | ({"compute_capability": capability} if capability else {})


def holds_host_code(flags: Collection[str]) -> bool:
    """True if an engine holds machine code of the host: version-compatible ones bring TensorRT's lean runtime along."""
    return "VERSION_COMPATIBLE" in flags


def meets(seen: str, requirement: str) -> bool:
    """True if a version or compute capability is among those that a requirement names.

    >>> meets("10.7.0", ">=10.3.0 <12"), meets("8.9", "8.6,8.9"), meets("8.7", "8.6"), meets("10.3.0", "10.3.0.26")
    (True, True, False, True)
    """
    alternatives = (alternative.split() for alternative in requirement.split(","))
    return any(conditions and all(_holds(seen, each) for each in conditions) for conditions in alternatives)


def _later_versions(version: str) -> str:
    major = (*_numbers(version), 0)[0]
    return f">={version} <{RUNS_BEFORE.get(major, major + 1)}"


def _holds(seen: str, condition: str) -> bool:
    sign = next((sign for sign in (">=", "<") if condition.startswith(sign)), "")
    wanted, here = _numbers(condition.removeprefix(sign)), _numbers(seen)
    if not wanted or not here:
        return False
    # Compared as far as both go: the C++ API tells three of a version's four numbers.
    common = min(len(wanted), len(here))
    wanted, here = wanted[:common], here[:common]
    return {">=": here >= wanted, "<": here < wanted, "": here == wanted}[sign]


def _numbers(version: str) -> tuple[int, ...]:
    """(10, 0, 0) of "10.0.0b6"."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9})*", version, re.ASCII)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
