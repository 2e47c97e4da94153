"""Headlines tell what a back end gains alone from what the artifact gains."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from eightfold.pipeline.report.headlines import _ends, share_of_backend
from eightfold.runtime.bench.timing import Interval
from tests.runtime.bench.test_latency import row, table

JOB: Any = SimpleNamespace(
    recipe=SimpleNamespace(export=SimpleNamespace(batches=[4])), artifacts=SimpleNamespace(sizes=[None])
)


def times(value: float) -> Interval:
    return Interval(value=value, low=0.9 * value, high=1.1 * value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pruned-int8 openvino", "3.00x beside the original on openvino"),
        ("pruned-int8", ""),  # on the back end of the baseline
        ("pruned-int8 other", ""),  # the original was not measured there
    ],
)
def test_the_gain_beside_the_original_on_the_same_back_end(name: str, words: str) -> None:
    """On openvino 6 times the baseline, of which the original there has 2."""
    measured = table(
        row(name="baseline-fp32", speedup=times(1.0)),
        row(name="baseline-fp32 openvino", backend="openvino", speedup=times(2.0)),
        row(name="pruned-int8", speedup=times(4.0)),
        row(name="pruned-int8 openvino", backend="openvino", speedup=times(6.0)),
        row(name="pruned-int8 other", backend="other", speedup=times(8.0)),
    )
    assert share_of_backend(JOB, measured, name, 4) == words


@pytest.mark.parametrize(
    ("inputs", "excepted"), [((3, 3), True), ((35, 19), True), ((32, 19), False), ((35, 20), False), ((3, 16), False)]
)
def test_maps_that_are_joined_with_the_image_have_its_channels_beside_the_multiple(
    inputs: tuple[int, int], excepted: bool
) -> None:
    """32 and 16 channels of a map, and the three of the image."""
    job: Any = SimpleNamespace(recipe=SimpleNamespace(preprocess=SimpleNamespace(channels=3)), classes=["a", "b"])
    width = {"in_before": inputs[0], "in_after": inputs[1], "out_before": 16, "out_after": 2}
    assert _ends(job, width, 8) == [(*inputs, excepted), (16, 2, True)]
