"""eightfold-run writes the JSON of Python's results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.decoder_cases import CASES, SIDE, Case
from tests.cpp.test_parity import picture
from tests.cpp.test_programs import Run, run

MakeBundle = Callable[..., Path]
__all__ = ["run"]  # a fixture
NEW = ("classify", "depth", "picture", "rcnn-masks", "segment", "yolo-keypoints", "yolo-masks", "yolo-oriented")
FIRST = {case.decode: case for case in reversed(CASES)}


@pytest.mark.parametrize("case", [FIRST[name] for name in NEW], ids=str)
def test_json_of_an_answer(run: Run, make_bundle: MakeBundle, tmp_path: Path, case: Case) -> None:
    # Of the network's own size: the default resizing of Python differs by a grey level.
    preprocess = Preprocess(height=SIDE, width=SIDE, mean=(0.5,), std=(0.25,))
    task = Task(kind=case.kind, decode=case.decode, options=case.options, labels=("cat", "dog"))
    bundle = make_bundle(preprocess, task, case.outputs, spreads=case.spreads)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), cv2.resize(picture(1), (SIDE, SIDE)))
    with Predictor(bundle) as predictor:
        expected = predictor.predict(path)
    answer = json.loads(run(bundle, path, "--json", "-").stdout)[str(path)]
    assert_alike(answer, expected.to_dict())
    assert run(bundle, path).stdout.startswith(f"{path}: ")


def assert_alike(seen: Any, expected: Any) -> None:
    """The same structure, and numbers within rounding."""
    if isinstance(expected, dict):
        assert seen.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(seen[key], value)
    elif isinstance(expected, list | tuple):
        assert len(seen) == len(expected)
        for one, other in zip(seen, expected, strict=True):
            assert_alike(one, other)
    else:
        assert seen == (pytest.approx(expected, abs=1e-3) if isinstance(expected, float) else expected)
