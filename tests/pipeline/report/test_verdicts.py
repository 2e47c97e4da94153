"""Verdicts hold only what the images show. The oracles are scipy's quantiles, exact counts and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from eightfold.pipeline.report.verdicts import AccuracyEvidence, MeasuredMetric, half_width, judge_drop
from eightfold.runtime.report.report_content import Check


def evidence(right_before: list[int], right_after: list[int], *, chance: float = 11.4) -> AccuracyEvidence:
    before, after = (
        MeasuredMetric(100 * float(np.mean(right)), tuple(100.0 * each for each in right))
        for right in (right_before, right_after)
    )
    return AccuracyEvidence(before, after, len(right_before), chance, "top-1")


def pairs(both: int, lost: int, won: int, neither: int) -> AccuracyEvidence:
    """Of images that both, only the first, only the second, and none of the two networks get right."""
    return evidence(
        [1] * both + [1] * lost + [0] * won + [0] * neither, [1] * both + [0] * lost + [1] * won + [0] * neither
    )


def judged(shown: AccuracyEvidence, max_drop: float = 1.0) -> Check:
    return judge_drop("keeps the accuracy", shown, max_drop, "try another way")


def test_a_baseline_at_chance_shows_nothing_and_preprocessing_is_named() -> None:
    """The numbers of a network that was given the wrong mean and std: 16.6% before, 16.7% after."""
    check = judged(pairs(160, 6, 7, 827))
    assert check.passed is None
    assert "16.6% before, 16.7% after" in check.seen
    assert "not clearly above chance, 11.4%" in check.seen
    assert "preprocess (mean, std, scale, color, size)" in check.remedy


def test_test_images_of_one_class_are_said_to_be() -> None:
    """No network can be above a chance of 100%, and no preprocessing is at fault."""
    check = judged(evidence([1] * 200, [1] * 200, chance=100.0))
    assert check.passed is None
    assert check.remedy.startswith("100% of the test images have the same answer")
    assert "add images of the other classes" in check.remedy


@pytest.mark.parametrize("value", [0.0, 0.4, 4.9])
def test_a_detector_that_finds_nothing_shows_nothing(value: float) -> None:
    measured = MeasuredMetric(value, (value,) * 10)
    check = judged(AccuracyEvidence(measured, measured, 500, 0.0, "mAP50-95"))
    assert check.passed is None
    assert "preprocess" in check.remedy


@pytest.mark.parametrize("images", [1, 2, 5, 24, 100])
def test_equal_answers_on_few_images_show_nothing(images: int) -> None:
    check = judged(pairs(images, 0, 0, 0))
    assert check.passed is None
    assert "too few test images" in check.remedy


def test_no_change_has_no_minus() -> None:
    assert "; change +0.0 points, " in judged(pairs(900, 0, 0, 100)).seen
    assert "; change +0.0 points, " in judged(pairs(99_999, 1, 0, 0)).seen  # -0.001


def test_how_many_images_would_do_is_enough() -> None:
    few = judged(pairs(97, 1, 1, 1))
    assert few.passed is None
    needed = int(few.remedy.rpartition("about ")[2].split()[0])
    share = needed // 100
    assert judged(pairs(97 * share, share, share, share)).passed is True


def test_enough_images_are_judged() -> None:
    assert judged(pairs(976, 8, 6, 10)).passed is True
    lost = judged(pairs(900, 60, 5, 35))
    assert lost.passed is False
    assert lost.remedy == "try another way"
    assert judged(pairs(900, 60, 5, 35), max_drop=6.0).passed is True


def test_a_clear_loss_needs_few_images() -> None:
    assert judged(pairs(10, 30, 0, 0)).passed is False


def test_a_metric_without_parts_shows_nothing() -> None:
    measured = MeasuredMetric(60.0, ())
    assert judged(AccuracyEvidence(measured, measured, 1000, 0.0, "mAP50-95")).passed is None


def test_two_classes_need_more_than_a_coin() -> None:
    coin = evidence([1] * 600 + [0] * 400, [1] * 600 + [0] * 400, chance=50.0)
    assert judged(coin).passed is None
    assert judged(evidence([1] * 950 + [0] * 50, [1] * 950 + [0] * 50, chance=50.0)).passed is True


@pytest.mark.parametrize("images", [30, 300])
def test_the_interval_holds_the_truth(images: int) -> None:
    """Of 400 draws with a true drop of 4 points at least 93% of the intervals hold it."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        drawn = rng.choice([0, 100, -100], size=images, p=[0.88, 0.08, 0.04])
        held += abs(float(drawn.mean()) - 4.0) <= half_width(drawn.tolist(), images)
    assert held >= 0.93 * 400
