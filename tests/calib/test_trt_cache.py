from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eightfold.calib.calibrate import calibrate
from eightfold.calib.ranges import Ranges, TensorRange
from eightfold.calib.trt_cache import (
    cache_from_ranges,
    hex_of,
    ranges_from_cache,
    thresholds_from_cache,
    version_number,
)
from eightfold.errors import CalibrationError, UsageError
from eightfold.onnx_graph.graph import read_graph

ModelMaker = Callable[..., Path]
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=12)


def ranges_of(thresholds: dict[str, float]) -> Ranges:
    tensors = {name: TensorRange(min=-v, max=v, low=-v, high=v, threshold=v) for name, v in thresholds.items()}
    return Ranges(method="entropy", images=1, image_set="", graph="", tensors=tensors)


def test_ranges_describe_themselves_by_the_widest_a_line_each() -> None:
    assert ranges_of({"a": 1.0, "b": 3.0, "c": 0.5, "d": 2.0}).describe().splitlines() == [
        "4 tensors, entropy, 1 images; widest:",
        "  b [-3, 3]",
        "  d [-2, 2]",
        "  a [-1, 1]",
    ]


def test_the_hex_is_most_significant_byte_first() -> None:
    # IEEE 754: 1.0 is 0x3f800000. A cache of an input in [0, 1] holds 1 / 127.
    assert hex_of(1.0) == "3f800000"
    assert thresholds_from_cache("TRT-8601-MinMaxCalibration\ndata: 3c010204\n")[1] == {"data": pytest.approx(1.0)}


def test_a_file_that_tensorrt_wrote_is_read_and_written_back() -> None:
    """Lines of a cache that TensorRT 8.2.5 wrote, from a report of a user (NVIDIA/TensorRT, issue 2958)."""
    text = (
        "TRT-8205-EntropyCalibration2\ninput: 3b810a13\nonnx::Conv_329: 3c96d93c\n"
        "(Unnamed Layer* 22) [Constant]_output: 3a4b050c\n"
    )
    method, found = thresholds_from_cache(text)
    assert method == "entropy"
    assert found["input"] == pytest.approx(0.5, rel=1e-3)  # no other byte order gives a round number
    assert 0.01 < found["(Unnamed Layer* 22) [Constant]_output"] < found["onnx::Conv_329"] < 10
    assert cache_from_ranges(ranges_of(found), version="8.2.5") == text


@given(st.dictionaries(NAMES, st.floats(1e-30, 1e30), min_size=1, max_size=5))
def test_text_comes_back_the_same(thresholds: dict[str, float]) -> None:
    text = cache_from_ranges(ranges_of(thresholds), version="10.3.0", algorithm="minmax")
    method, found = thresholds_from_cache(text)
    assert method == "minmax"
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in thresholds.items()}
    again = cache_from_ranges(ranges_of(found), version="10.3.0", algorithm="minmax")
    assert again == text


@pytest.mark.parametrize(
    ("version", "number"), [("8.2.1", 8201), ("8.6.1.6", 8601), ("10.3.0", 100300), ("10.7", 100700)]
)
def test_versions(version: str, number: int) -> None:
    assert version_number(version) == number


@pytest.mark.parametrize("version", ["11.0.0", "six", "6.0"])
def test_versions_without_caches(version: str) -> None:
    with pytest.raises(UsageError, match=r"reads no calibration cache; allowed: 7 to 10"):
        version_number(version)


def test_ranges_for_a_network(residual_net: ModelMaker, rows: Any) -> None:
    path = residual_net()
    text = cache_from_ranges(calibrate(path, rows, None, method="entropy"))
    graph = read_graph(path)
    ranges = ranges_from_cache(text, graph)
    ranges.check_graph(graph.digest(), "net")
    assert cache_from_ranges(ranges) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "starts with ''"),
        ("layer: 3f800000", "allowed: a line such as"),
        ("TRT-8601-EntropyCalibration2\nlayer 3f80", "'layer 3f80'; allowed: 'tensor: eight hex digits'"),
        ("TRT-8601-EntropyCalibration2\nother: 3f800000", "shares no tensor"),
    ],
)
def test_what_is_not_this_networks_cache(residual_net: ModelMaker, text: str, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        ranges_from_cache(text, read_graph(residual_net()))
