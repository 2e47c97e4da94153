"""The recorded names against the compiled bindings' own strings (record_wheels.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eightfold.export.tensorrt.generation import generation_of, version_numbers
from tests.export.tensorrt.fake_tensorrt import SURFACES, VERSIONS

WHEELS: dict[str, Any] = json.loads(Path(__file__).with_name("wheels.json").read_text())


def series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def absent(version: str) -> set[str]:
    return set(WHEELS[version]["absent"])


RECORDED = [version for version in WHEELS if series(version) in SURFACES]
NEWER = [version for version in WHEELS if version_numbers(version) > version_numbers(VERSIONS[-1])]


def test_every_generation_has_a_wheel() -> None:
    """8.2 to 8.5 were not published as wheels."""
    assert {series(version) for version in RECORDED} == set(VERSIONS) - {"8.2", "8.4", "8.5"}


@pytest.mark.parametrize("version", RECORDED)
def test_what_the_sources_name_is_in_the_binary(version: str) -> None:
    names = SURFACES[series(version)]["names"]
    assert {name: absent(version) & set(members) for name, members in names.items()} == {name: set() for name in names}


@pytest.mark.parametrize("version", NEWER)
def test_versions_beyond_the_recorded_ones_kept_every_name(version: str) -> None:
    members = set().union(*SURFACES[VERSIONS[-1]]["names"].values())
    assert not absent(version) & members


@pytest.mark.parametrize("version", WHEELS)
def test_the_generations_differ_as_the_binaries_do(version: str) -> None:
    generation = generation_of("tensorrt", version)
    assert generation.ranges == ("set_dynamic_range" not in absent(version))
    assert generation.ranges == ("int8_calibrator" not in absent(version))
    assert generation.memory_pools == ("set_memory_pool_limit" not in absent(version))
    # Before 10.12 precision flags are set where both ways exist; from 11 on there are none to set.
    assert generation.strongly_typed or "OBEY_PRECISION_CONSTRAINTS" not in absent(version)
    assert generation.explicit_batch or "STRONGLY_TYPED" not in absent(version)
