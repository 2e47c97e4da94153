"""The C++ examples, built with the library, on the pictures and bundles of their Python counterparts."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess.results import Classification, Detections
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.conftest import LIBRARY_VARIABLE
from tests.cpp.decoder_cases import SIDE, box_spread

MakeBundle = Callable[..., Path]
Example = Callable[..., "subprocess.CompletedProcess[str]"]
LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def example() -> Example:
    library = os.environ.get(LIBRARY_VARIABLE)
    if not library:
        pytest.skip(f"{LIBRARY_VARIABLE} does not name a built libeightfold.so; run: make check-cpp")

    def call(name: str, *words: object) -> subprocess.CompletedProcess[str]:
        program = Path(library).parent / "examples" / f"eightfold-{name}"
        return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)

    return call


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Of the model's own size, so that nothing is rounded on the way."""
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    return path


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


def test_classify(example: Example, make_bundle: MakeBundle, picture: Path) -> None:
    task = Task(kind="classify", decode="classify", labels=LABELS)
    bundle = make_bundle(Preprocess(height=SIDE, width=SIDE), task, {"logits": (3,)})
    with Predictor(bundle) as predictor:
        answer = predictor.predict(picture)
    assert isinstance(answer, Classification)
    lines = example("classify", bundle, picture).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [each.label for each in answer.top]
    assert [numbers(line) for line in lines] == [[pytest.approx(each.probability, abs=2e-4)] for each in answer.top]


def test_detect(example: Example, make_bundle: MakeBundle, picture: Path) -> None:
    task = Task(kind="detect", decode="yolo-boxes", labels=LABELS, options={"score_threshold": 0.6})
    how, spreads = Preprocess(height=SIDE, width=SIDE), {"output0": box_spread(7)}
    bundle = make_bundle(how, task, {"output0": (7, 84)}, spreads=spreads)
    with Predictor(bundle) as predictor:
        answer = predictor.predict(picture)
    assert isinstance(answer, Detections)
    lines = example("detect", bundle, picture).stdout.splitlines()
    assert len(lines) > 0
    assert [line.split()[0] for line in lines] == list(answer.labels)
    expected = np.column_stack([answer.scores, answer.boxes])
    np.testing.assert_allclose([numbers(line) for line in lines], expected, atol=0.06)


@pytest.mark.parametrize("name", ["classify", "detect"])
def test_what_they_refuse(example: Example, picture: Path, name: str) -> None:
    done = example(name, "nowhere", picture)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"eightfold-{name}: there is no bundle at 'nowhere'")
    assert example(name).returncode == 2
