from __future__ import annotations

import pytest
from scipy.stats import binomtest

from eightfold.runtime.report.report_format import (
    digits,
    error,
    milliseconds,
    quantity,
    relative,
    share_interval,
    signed,
)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "count", "0"),
        (640, "count", "640"),
        (999_499, "count", "999 k"),
        (999_999, "count", "1.00 M"),
        (11_181_642, "count", "11.2 M"),
        (2.5e9, "MACs", "2.50 G"),
        (0, "bytes", "0 B"),
        (44_800_000, "bytes", "44.8 MB"),
        (98.04, "percent", "98.0 %"),
        (4.6321, "times", "4.63\u00d7"),
        (0.4231, "ms", "0.423 ms"),
        (12.0, "seconds", "12.0 s"),
        (None, "bytes", "\u2013"),
    ],
)
def test_quantity(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit).replace("\u202f", " ") == text


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (56.78, "56.78"), (1234.5, "1234.5"), (None, "\u2013")])
def test_milliseconds(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("right", "images"), [(980, 1000), (1000, 1000), (0, 50), (1, 3)])
def test_interval_of_a_share_is_scipy_s(right: int, images: int) -> None:
    low, high = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert share_interval(100 * right / images, images, "top-1") == f"{100 * low:.1f} to {100 * high:.1f}"


def test_other_metrics_have_no_interval() -> None:
    assert share_interval(41.2, 5000, "mAP") == ""
    assert share_interval(98.0, 0, "top-1") == ""


def test_signs_and_changes() -> None:
    assert signed(0.4) == "+0.4"
    assert signed(-0.4) == "\u22120.4"
    assert signed(0.04) == "±0.0"
    assert relative(0, 5.0) == ""
    assert relative(None, 5.0) == ""
    assert relative(100.0, 125.0).replace("\u202f", " ") == "+25 %"


def test_errors_and_digits() -> None:
    assert error(0.0) == "0"
    assert error(2.13e-6) == "2.1e-06"
    assert digits(1234.5) == "1,234"
    assert digits(0.0) == "0.000"
