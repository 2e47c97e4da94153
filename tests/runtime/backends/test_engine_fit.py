from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.runtime.backends.engine_fit import engine_requirements, meets


@pytest.mark.parametrize(
    ("built", "runs_on", "not_on"),
    [
        ("8.6.1", ("8.6.1", "8.6.2", "9.3.0", "10.0.1", "10.16.1"), ("8.5.3", "8.6.0", "11.0.0")),
        ("10.3.0", ("10.3.0", "10.3.1", "10.13.3", "11.4.1"), ("10.2.0", "8.6.1", "12.0.0")),
        ("11.0.0", ("11.0.0", "11.4.1"), ("10.16.1", "12.0.0")),
    ],
)
def test_version_compatible_engines_run_where_nvidias_support_matrix_says(
    built: str, runs_on: tuple[str, ...], not_on: tuple[str, ...]
) -> None:
    wanted = engine_requirements("tensorrt", built, "8.6", ["VERSION_COMPATIBLE"])
    assert [here for here in runs_on if not meets(here, wanted["tensorrt"])] == []
    assert [here for here in not_on if meets(here, wanted["tensorrt"])] == []
    assert wanted["compute_capability"] == "8.6"


def test_hardware_compatible_engines_run_from_ampere_on() -> None:
    wanted = engine_requirements("tensorrt", "10.3.0", "8.6", ["FP16", "AMPERE_PLUS"])
    assert wanted["tensorrt"] == "10.3.0"
    assert [here for here in ("7.5", "8.0", "8.7", "9.0", "12.1") if meets(here, wanted["compute_capability"])] == [
        "8.0", "8.7", "9.0", "12.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "requirement", "expected"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.3.0.26", True),
        ("8.5.2.2", "8.5.2", True),
        ("1.7.1.116", "1.7.1.115", False),
        ("10.3.0", "10.30.0", False),
        ("10.0.0b6", "10.0.0", True),
        ("8.6", "8.6,8.9", True),
        ("8.7", "8.6,8.9", False),
        ("12.0", ">=8.0", True),
        ("7.5", ">=8.0", False),
        ("10.3", "", False),
        ("10.3", "10.3,", True),
        ("10.3", ",", False),
        ("10.3", "any", False),
        ("", "10.3", False),
        ("10.3", ">10.0", False),
    ],
)
def test_requirements(seen: str, requirement: str, expected: bool) -> None:
    assert meets(seen, requirement) == expected


@given(st.text(), st.text())
def test_any_text_is_answered(seen: str, requirement: str) -> None:
    assert meets(seen, requirement) in (True, False)
    assert engine_requirements("tensorrt", seen, requirement, ["VERSION_COMPATIBLE"])["tensorrt"].startswith(">=")
