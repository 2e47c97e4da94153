from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eightfold.calib.images import transform
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError


def test_json_round_trip_keeps_the_digest() -> None:
    preprocess = Preprocess(height=224, width=224, resize="center-crop", shorter_side=256, mean=(0.5, 0.4, 0.3))
    assert Preprocess.from_json(preprocess.to_json()).digest() == preprocess.digest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.1, 0.2]}, "mean has 2 entries; allowed: 1 or 3"),
        ({"mean": [0.5, 0.5]}, "mean has 2 entries; allowed: 1 or 3"),
        ({"std": [0.5, 0.5, 0.5, 0.5]}, "std has 4 entries; allowed: 1 or 3"),
        ({"mean": [0.5, 0.5], "color": "grey"}, "mean has 2 entries; allowed: 1, for grey"),
        ({"mean": []}, "mean has 0 entries"),
        ({"mean": [123.675, 116.28, 103.53]}, r"mean is .* end at 1; .*scale: 1"),
        ({"mean": [-123.675, -116.28, -103.53]}, r"mean is .* end at 1;"),
        ({"std": [58.395, 57.12, 57.375]}, r"std is .* end at 1; .*scale: 1"),
        ({"std": [255]}, r"std is .* end at 1;"),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1}, r"in \[0, 1\], with scale: 1/255"),
        ({"scale": 0}, "scale is 0"),
        ({"channels": 4, "color": "rgb"}, "channels is 4 and color rgb; allowed: 3 channels"),
        ({"color": "as-is"}, "as-is without channels"),
        ({"channels": 0}, "channels"),
        ({"channels": 4, "mean": [0.5, 0.5, 0.5]}, "mean has 3 entries; allowed: 1 or 4"),
        ({"pad_value": 256}, "pad_value is 256; allowed: 0 to 255"),
        ({"pixels": "uint16", "dtype": "uint8"}, "dtype float32 for images of 16 bits"),
        ({"pixels": "float32"}, "pixels"),
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


@pytest.mark.parametrize(
    ("own", "shorter", "size", "expected"),
    [
        ((224, 224), 256, (160, 160), 183),  # 182.86
        ((224, 224), 256, (448, 448), 512),
        ((100, 200), 250, (50, 50), 63),  # 62.5, up
        ((100, 200), 250, (201, 10), 251),  # 251.25
        ((100, 200), 200, (7, 9), 9),
        ((224, 224), None, (160, 160), None),
    ],
)
def test_another_size_shows_the_same_part_of_an_image(
    own: tuple[int, int], shorter: int | None, size: tuple[int, int], expected: int | None
) -> None:
    rules = Preprocess(height=own[0], width=own[1], resize="center-crop", shorter_side=shorter, mean=(0.5,), std=(0.2,))
    made = rules.at_size(*size)
    assert made == rules.model_copy(update={"height": size[0], "width": size[1], "shorter_side": expected})
    assert rules.at_size(*own) == rules


@pytest.mark.parametrize("size", [(0, 8), (8, 1 << 17)])
def test_a_size_that_no_tensor_has(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"preprocessing for \d+x\d+: (height|width): .*; allowed: 1 to 65536 pixels"):
        Preprocess(height=8, width=8).at_size(*size)


def test_a_crop_that_would_need_too_large_an_image() -> None:
    rules = Preprocess(height=8, width=8, resize="center-crop", shorter_side=1 << 16)
    with pytest.raises(UsageError, match="preprocessing for 16x16: shorter_side"):
        rules.at_size(16, 16)


@pytest.mark.parametrize(
    "values",
    [
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "scale": 1},
        {"mean": [127.5], "std": [127.5], "scale": 1},
        {"mean": [1], "scale": 1 / 127.5},
        {"mean": [-1], "scale": -1 / 255},  # white on black
        {"scale": 1},
        {"std": [256], "scale": 1},
        {"mean": [0.1307] * 3, "std": [0.3081] * 3, "color": "grey"},
        {"mean": [0.5], "std": [0.5], "pixels": "uint16", "scale": 1 / 4095},
        {"mean": [0.5], "std": [0.25], "pixels": "uint16"},
    ],
)
def test_what_trainings_use_is_taken(values: dict[str, Any]) -> None:
    Preprocess.model_validate({"height": 32, "width": 32, **values})


def test_older_values_keep_their_json() -> None:
    """Digests in bundles and ranges depend on it. Written by the version that had no other channels."""
    preprocess = Preprocess(height=8, width=8, color="grey", mean=(0.25,))
    assert preprocess.digest() == "c97b2de7b84cc276fc71cceec9998005a19cfd542d734eedeee8926b78c2f8ac"
    assert not {"channels", "pixels"} & preprocess.model_dump().keys()


@pytest.mark.parametrize(("channels", "color"), [(1, "grey"), (3, "rgb"), (2, "as-is"), (4, "as-is"), (13, "as-is")])
def test_a_number_of_channels_says_how_they_are_taken(channels: int, color: str) -> None:
    preprocess = Preprocess(height=8, width=8, channels=channels)
    assert (preprocess.color, preprocess.channels) == (color, channels)
    again = Preprocess.from_json(preprocess.to_json())
    assert again == preprocess
    assert again.at_size(4, 4).channels == channels
    assert ("channels" in preprocess.model_dump()) == (color == "as-is")
