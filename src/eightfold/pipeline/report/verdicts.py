"""Verdicts on a drop of a metric: holds, does not hold, or not shown where the test images cannot tell.

Both artifacts are measured on the same images, so that the difference is judged by pairs: image by image for a share of
right answers, part by part for metrics that are no mean over images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eightfold.runtime.bench.timing import student_quantile
from eightfold.runtime.report.report_content import Check

# A baseline has to be this far above chance, in points, at the least.
CLEAR_POINTS = 5.0


@dataclass(frozen=True)
class MeasuredMetric:
    """The leading metric of one artifact on the test images.

    Attributes:
        percent: its value.
        parts: percent for each image, or for each of several parts of the set; their mean is about `percent`.
    """

    percent: float
    parts: tuple[float, ...]


@dataclass(frozen=True)
class AccuracyEvidence:
    """Results of the test images for a baseline and for an artifact made from it.

    Attributes:
        images: their number.
        chance_percent: what guessing gets on them.
        metric: its name in sentences.
    """

    before: MeasuredMetric
    after: MeasuredMetric
    images: int
    chance_percent: float
    metric: str

    @property
    def drop(self) -> float:
        """In points."""
        return self.before.percent - self.after.percent

    @property
    def half_width(self) -> float:
        """Half of the 95% interval of the drop, in points; infinite where nothing is known of its spread."""
        if len(self.before.parts) != len(self.after.parts):
            return math.inf
        return half_width(np.subtract(self.before.parts, self.after.parts).tolist(), self.images)

    @property
    def clear_percent(self) -> float:
        """The least that a baseline has to reach to say anything: twice chance, or half way from chance to 100%."""
        chance = self.chance_percent
        return max(min(2 * chance, (100 + chance) / 2), chance + CLEAR_POINTS)


def half_width(parts: Sequence[float], images: int) -> float:
    """Half of the 95% interval of a mean of percentages, in points.

    Student's interval over the parts, with the variance of one image more of either kind, as Agresti and Min add it
    (Statistics in Medicine 24, 2005): without it, equal answers on two images would have an interval of zero.
    """
    if len(parts) < 2:
        return math.inf
    variance = float(np.var(parts, ddof=1)) / len(parts) + (100 / (images + 2)) ** 2
    return student_quantile(len(parts) - 1) * math.sqrt(variance)


def judge_drop(name: str, evidence: AccuracyEvidence, max_drop: float, remedy: str) -> Check:
    """Checks that at most `max_drop` points are lost; `passed` is None if the images cannot show it."""
    before, after, chance = evidence.before.percent, evidence.after.percent, evidence.chance_percent
    width, drop = evidence.half_width, evidence.drop
    wanted = f"at most {max_drop:g} {'point' if max_drop == 1 else 'points'} less"
    seen = f"{before:.1f}% before, {after:.1f}% after, on {evidence.images} images"
    if before < evidence.clear_percent:
        seen += f"; the baseline is not clearly above chance, {chance:.1f}%"
        return Check(name=name, passed=None, seen=seen, wanted=wanted, remedy=_of_weak_baseline(evidence))
    if math.isfinite(width):
        change, low, high = (f"{_tenths(value):+.1f}" for value in (-drop, -drop - width, width - drop))
        seen += f"; change {change} points, 95% interval {low} to {high}"
    if drop - width > max_drop:
        return Check(name=name, passed=False, seen=seen, wanted=wanted, remedy=remedy)
    unsure = before - half_width(evidence.before.parts, evidence.images) < evidence.clear_percent
    if width > max_drop or unsure:
        return Check(
            name=name,
            passed=None,
            seen=seen,
            wanted=wanted,
            remedy=_of_few_images(evidence, max_drop),
            over_limit=drop > max_drop + 1e-9,
        )
    # What is shown is rounded to tenths; the limit itself still holds.
    passed = drop <= max_drop + 1e-9
    return Check(name=name, passed=passed, seen=seen, wanted=wanted, remedy="" if passed else remedy)


def _tenths(value: float) -> float:
    return round(value, 1) + 0.0  # no minus before a zero


def _of_weak_baseline(evidence: AccuracyEvidence) -> str:
    if evidence.clear_percent > 100:
        return (
            f"{evidence.chance_percent:.0f}% of the test images have the same answer, so that a network which always "
            "gives it would do as well; add images of the other classes"
        )
    return (
        f"the likely cause is preprocessing: compare preprocess (mean, std, scale, color, size) with what the network "
        f"was trained with, then its weights and the order of its classes; {evidence.clear_percent:.1f}% "
        f"{evidence.metric} or more can be judged"
    )


def _of_few_images(evidence: AccuracyEvidence, max_drop: float) -> str:
    width = evidence.half_width
    if not math.isfinite(width) or max_drop <= 0:
        return "too few test images for a verdict; add labelled test images"
    needed = max(evidence.images + 1, math.ceil(evidence.images * (width / max_drop) ** 2))
    digits = max(0, len(str(needed)) - 2)
    rounded = math.ceil(needed / 10**digits) * 10**digits
    return f"too few test images for a verdict on {max_drop:g} points; about {rounded} would do"
