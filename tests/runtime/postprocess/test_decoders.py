from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError, UnknownNameError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import DECODERS, decoder_class, decoder_of
from eightfold.runtime.postprocess.classify import TopK
from eightfold.runtime.postprocess.detect import Candidates

IDENTITY = Placement((8, 8), (8, 8), (0, 0), (8, 8))
PAGE = Path(__file__).parents[3] / "docs" / "decoders.md"


def task(decode: str, **options: Any) -> Task:
    return Task(kind="detect", decode=decode, labels=("a", "b"), options=options)


def test_options_reach_the_decoder() -> None:
    decoder = decoder_of(task("classify", k=2, activation="none"))
    assert decoder == TopK(labels=("a", "b"), k=2, activation="none")


def test_an_unknown_decoder() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown decoder 'yolo-box'; allowed: .*did you mean 'yolo-boxes'"):
        decoder_of(task("yolo-box"))


@pytest.mark.parametrize(
    ("decode", "options", "message"),
    [
        ("classify", {"top": 3}, "options of decoder 'classify': unknown key top; allowed: activation, k"),
        ("classify", {"k": 0}, r"k: input should be greater than or equal to 1 \(seen 0\)"),
        ("yolo-boxes", {"nms": "maybe"}, "nms: "),
        ("yolo-anchors", {}, "missing key anchors"),
    ],
)
def test_wrong_options(decode: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        decoder_of(task(decode, **options))


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_every_decoder_and_option_is_on_the_page(name: str) -> None:
    page = PAGE.read_text()
    assert f"`{name}`" in page
    for option in set(decoder_class(name).model_fields) - {"labels"}:
        assert f"`{option}`" in page


def test_equal_scores_rank_by_index() -> None:
    (answer,) = TopK(k=3)({"o": np.array([[1.0, 2.0, 1.0, 2.0]], np.float32)}, [IDENTITY])
    assert [score.index for score in answer.top] == [1, 3, 0]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_probabilities(activation: str) -> None:
    logits = np.array([[-1000.0, 0.0, 3.0]], np.float32)
    exact = {
        "softmax": np.exp([-1003.0, -3, 0]) / np.exp([-1003.0, -3, 0]).sum(),
        "sigmoid": 1 / (1 + np.exp([700.0, 0, -3])),
        "none": logits[0],
    }[activation]
    (answer,) = decoder_of(task("classify", activation=activation))({"o": logits}, [IDENTITY])
    seen = {score["index"]: score["probability"] for score in answer.to_dict()["top"]}
    np.testing.assert_allclose([seen[0], seen[1], seen[2]], exact, atol=1e-6)


def test_float16_outputs() -> None:
    (answer,) = TopK()({"o": np.array([[0, 10, 0]], np.float16)}, [IDENTITY])
    assert answer.probability == pytest.approx(0.9999, abs=1e-4)


def test_many_candidates_of_one_score_rank_by_number() -> None:
    numbers = np.random.default_rng(0).permutation(1000)
    rows, ones = np.zeros((1000, 4), np.float32), np.ones(1000, np.float32)
    best = Candidates(rows, ones, np.zeros(1000, np.int64), numbers).best(3)
    assert best.numbers.tolist() == [0, 1, 2]
