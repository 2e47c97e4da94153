"""The search for layers to keep in float as commands and runs make it: bounds, a quick ranking, files beside the
result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Ranges
from eightfold.errors import UsageError
from eightfold.export.int8.mixed_precision import SearchOptions, quantize_within
from eightfold.export.int8.mixed_precision_report import SearchReport
from eightfold.export.int8.score import Score, quick_sqnr_score, sqnr_score, top1_score
from eightfold.files import PathLike


@dataclass(frozen=True)
class SearchBound:
    """The bound that INT8 must hold: either points of a metric that it may lose, or the least SQNR of its outputs."""

    max_drop: float | None = None
    min_sqnr_db: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.min_sqnr_db is not None:
            raise UsageError("both max_drop and min_sqnr were given", allowed="one of them")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(f"a drop of {self.max_drop:g} points", allowed="0 or more")
        if self.min_sqnr_db is not None and not math.isfinite(self.min_sqnr_db):
            raise UsageError(f"a signal to noise of {self.min_sqnr_db:g} dB", allowed="a finite number")

    @property
    def is_set(self) -> bool:
        """True if a bound was given."""
        return self.max_drop is not None or self.min_sqnr_db is not None


def search_files(
    onnx_path: PathLike,
    ranges: Ranges,
    output: PathLike,
    bound: SearchBound,
    images: ImageSet | None,
    preprocess: Preprocess | None,
    *,
    target: str = "cpu-x86",
    weight_bits: int | None = None,
    measure: bool = True,
    beside: PathLike | None = None,
    score: Score | None = None,
    most_float: float = 1.0,
) -> SearchReport:
    """`quantize_within` for files: layers are ranked by the noise that each alone makes on a few images, scores are
    kept in `beside` (`output` by default) with the suffix .search.json until the search is done, and the trade is drawn
    there with .svg.

    Args:
        score: what `max_drop` bounds; top-1 when None.
        most_float: see SearchOptions.

    Raises:
        UsageError: no images or no Preprocess.
        ImageError: `max_drop` with images that have no labels.
    """
    if images is None or preprocess is None:
        raise UsageError("a search without images", allowed="images and the Preprocess for them")
    source = Path(onnx_path)
    rank_by = quick_sqnr_score(source, images, preprocess)
    goal = bound.min_sqnr_db
    if goal is None:
        score, drop = score or top1_score(images, preprocess), bound.max_drop or 0.0
    else:
        score, drop = sqnr_score(source, images, preprocess, ceiling_db=goal), 0.0
    options = SearchOptions(drop, ranking="quantize-one", most_float=most_float, measure=measure)
    plot = Path(beside or output).with_suffix(".svg")
    state = plot.with_suffix(".search.json")
    _, report = quantize_within(
        source,
        ranges,
        output,
        score,
        options,
        rank_by=rank_by,
        target=target,
        weight_bits=weight_bits,
        state=state,
    )
    report = report.model_copy(update={"is_goal": goal is not None})
    state.unlink(missing_ok=True)
    if len(report.steps) > 1:
        report.plot(plot)
    return report
