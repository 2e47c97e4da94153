"""The base of the values: frozen, strict, round trip through JSON, stable digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, field_validator, model_validator

from eightfold.errors import BundleError, EightfoldError, UsageError
from eightfold.values import Value, first_fault


class Point(Value):
    kind: ClassVar[str] = "point"
    error: ClassVar[type[EightfoldError]] = BundleError

    x: float
    y: int = 0


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_round_trip(x: float, y: int) -> None:
    point = Point(x=x, y=y)
    again = Point.from_json(point.to_json())
    assert again == point
    assert again.digest() == point.digest()


class Table(Value):
    kind: ClassVar[str] = "table"

    rows: tuple[tuple[float, ...], ...] = ()
    names: tuple[str, ...] = ()


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)), st.lists(st.text()))
def test_lists_of_numbers_stand_on_one_line_and_nothing_else_changes(rows: list[list[float]], names: list[str]) -> None:
    table = Table.model_validate({"rows": rows, "names": names})
    assert Table.from_json(table.to_json()) == table
    assert "[1.5, -2e-07]" in Table(rows=((1.5, -2e-7),)).to_json()
    assert json.loads(table.to_json()) == table.model_dump(mode="json")


def test_digest_tells_values_apart() -> None:
    assert Point(x=1).digest() != Point(x=2).digest()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"x": "a"}, r"^Point: x: input should be a valid number.*seen 'a'"),
        ({"x": 1, "z": 1}, "^Point: unknown key z"),
        ({}, "^Point: missing key x"),
    ],
)
def test_a_wrong_field_of_a_call_is_one_line(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Point(**fields)
    assert "\n" not in str(caught.value)


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Point(x=1).x = 2  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "p.json is not JSON"),
        ('{"x": "a"}', "p.json: x: input should be a valid number"),
        ('{"x": 1, "z": 1}', "p.json: unknown key z"),
        ("{}", "p.json: missing key x"),
        ('{"x": 1, "schema": 7}', "point has schema 7; allowed: schema 1"),
        ('{"x": 1, "kind": "line"}', "this JSON holds a 'line'; allowed: point"),
    ],
)
def test_bad_json_is_one_line(text: str, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Point.from_json(text, source="p.json")


def test_save_and_load(tmp_path: Path) -> None:
    path = Point(x=0.1).save(tmp_path / "p.json")
    assert Point.load(path) == Point(x=0.1)


def test_loading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*nothing\.json.*allowed: a point file"):
        Point.load(tmp_path / "nothing.json")


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "point.json").write_bytes(b"\xef\xbb\xbf" + Point(x=2).to_json().encode())
    assert Point.load(tmp_path / "point.json") == Point(x=2)


class Even(Value):
    kind: ClassVar[str] = "even number"

    half: int
    whole: int

    @field_validator("half")
    @classmethod
    def _check_half(cls, value: int) -> int:
        if value < 0:
            raise ValueError("Halves are not negative")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Even:
        if self.whole != 2 * self.half:
            raise ValueError("the whole is twice the half")
        return self


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"half": -1, "whole": 2}, "half: Halves are not negative (seen -1)"),
        ({"half": 1, "whole": 3}, "value: the whole is twice the half (seen {'half': 1, 'whole': 3})"),
    ],
)
def test_a_validator_s_own_words_stand_alone(data: dict[str, int], words: str) -> None:
    """pydantic puts "Value error, " in front of them."""
    with pytest.raises(ValidationError) as caught:
        Even.model_validate(data)
    assert first_fault(caught.value) == words
