from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eightfold.calib import transform
from eightfold.calib.preprocess import Preprocess
from eightfold.errors import UsageError


def test_json_round_trip_keeps_the_digest() -> None:
    preprocess = Preprocess(height=224, width=224, resize="center-crop", shorter_side=256, mean=(0.5, 0.4, 0.3))
    assert Preprocess.from_json(preprocess.to_json()).digest() == preprocess.digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.1, 0.2]}, "mean has 2 entries; allowed: 1 or 3"),
        ({"std": [0.0]}, "allowed: positive"),
        ({"resize": "center-crop", "shorter_side": 16}, "smaller than the crop"),
        ({"color": "cmyk"}, "color"),
        ({"heigth": 3}, "heigth"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], words: str) -> None:
    import json

    text = json.dumps({"height": 32, "width": 32, **change})
    with pytest.raises(UsageError, match=words):
        Preprocess.from_json(text)


def test_without_opencv_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "installed", lambda module: False)
    preprocess = Preprocess(height=8, width=8)
    image = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(image), preprocess.reference(image))


def test_grey_takes_the_default_mean_of_three() -> None:
    assert Preprocess(height=8, width=8, color="grey").means == (0.0,)
