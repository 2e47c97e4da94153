"""Detections in the graph, put there and compared with the runtime's decoder on the outputs as they were."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eightfold.calib.geometry import Placement
from eightfold.errors import VerificationError
from eightfold.export.box_heads import Size
from eightfold.export.detections import Form, with_detections
from eightfold.export.onnx_files import input_specs, load_onnx, save_onnx
from eightfold.export.trials import trials_of
from eightfold.export.verify import Arrays, runner
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step, Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.results import Detections

STEP = "decode in graph"
# Two detections are the same one within these; a box at the very threshold may fall on either side of it.
BOX_PIXELS, SCORE = 0.5, 1e-3
LEAST_AGREEMENT = 0.99
# A few units in the last place of float32.
ROUNDING = 5e-7
# So many detections per image are compared at least, where the network has them at any score.
COMPARED = 100


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How many detections of two ways there are, how many of these in both, and how far their boxes lie apart."""

    found: int
    same: int
    pixels: float

    @property
    def enough(self) -> bool:
        return self.same >= LEAST_AGREEMENT * self.found


def put_decoder_in(
    path: PathLike, task: Task, size: Size, *, form: Form = "onnx", inputs: Arrays | None = None
) -> tuple[Task, Step]:
    """Rewrite an ONNX file in place so that it puts out detections; see `with_detections`.

    Args:
        path: a detector's fixed-size file.
        task: what its outputs mean.
        size: (height, width) of its input in pixels.
        form: of the suppression.
        inputs: real inputs by name to compare on, beside constants, extremes and noise; random ones when None. More
            rows than the network's batch are run in turn.

    Returns:
        What the output means now, and what was found: the largest difference is one of box edges in pixels.

    Raises:
        VerificationError: on the first inputs, less than 99% of the detections are the decoder's, where rounding
            changes fewer; the file is left as it was.
    """
    path = Path(path)
    model = load_onnx(path)
    made, decoded = with_detections(model, task, size, form=form)
    raw = runner(path)
    trials = trials_of(input_specs(model), inputs)
    answers = {name: [raw(each) for each in runs] for name, runs in trials.items()}
    first = next(iter(answers.values()))
    wide = _with_threshold(task, min(_low_threshold(task, size, answer) for answer in first))
    # The plugin runs on its device only: the other form has the same candidates.
    compared, as_compared = with_detections(model, wide, size)
    run = runner(compared)
    notes, worst = [], 0.0
    for name, runs in trials.items():
        outside = [_decoded(wide, size, answer) for answer in answers[name]]
        inside = [_decoded(as_compared, size, run(inputs)) for inputs in runs]
        found = _agreement(inside, outside)
        words = f"on {name}: {found.same} of {found.found} detections the same"
        nudged = [_decoded(wide, size, _nudged(answer)) for answer in answers[name]]
        if not found.enough and not _agreement(nudged, outside).enough:
            # Saturated scores are equal but for rounding, and rounding decides who goes first.
            words += "; not judged, as few are when the outputs are rounded otherwise"
        elif answers[name] is first and not found.enough:
            raise VerificationError(f"{STEP} {words}", allowed=f"at least {LEAST_AGREEMENT:.0%}")
        notes.append(words)
        worst = max(worst, found.pixels)
    save_onnx(made, path)
    if form == "efficient":
        notes.append("compared with NonMaxSuppression in the plugin's place")
    return decoded, Step(name=STEP, tool=form, max_abs_error=worst, notes=tuple(notes))


def _low_threshold(task: Task, size: Size, answer: Arrays) -> float:
    """The task's own threshold, or one that lets enough through to compare."""
    threshold = float(decoder_of(task).score_threshold)  # type: ignore[attr-defined]  # with_detections took a detector
    options = {"score_threshold": 0.0, "nms": False, "max_detections": COMPARED}
    everything = task.model_copy(update={"options": {**task.options, **options}})
    lowest = [float(each.scores[-1]) for each in _decoded(everything, size, answer) if len(each)]
    return min([threshold, *(score * (1 - SCORE) for score in lowest)])


def _nudged(answer: Arrays) -> Arrays:
    """A rounding error of each output, or of what a score near 1 is made of where it is smaller."""
    rng = np.random.default_rng(0)
    return {
        name: (array + ROUNDING * np.maximum(np.abs(array), 1) * rng.uniform(-1, 1, array.shape)).astype(array.dtype)
        for name, array in answer.items()
    }


def _with_threshold(task: Task, threshold: float) -> Task:
    return task.model_copy(update={"options": {**task.options, "score_threshold": threshold}})


def _decoded(task: Task, size: Size, outputs: Arrays) -> Sequence[Detections]:
    batch = len(next(iter(outputs.values())))
    answers: Any = decoder_of(task)(outputs, [Placement(size, size, (0, 0), size)] * batch)
    return list(answers)


def _agreement(inside: Sequence[Sequence[Detections]], outside: Sequence[Sequence[Detections]]) -> Agreement:
    """Over the images of several runs."""
    each = [
        _agreement_on_image(*pair) for runs in zip(inside, outside, strict=True) for pair in zip(*runs, strict=True)
    ]
    return Agreement(sum(a.found for a in each), sum(a.same for a in each), max(a.pixels for a in each))


def _agreement_on_image(inside: Detections, outside: Detections) -> Agreement:
    """Each one with the nearest of the same class that is not taken."""
    left, same, pixels = np.ones(len(inside), bool), 0, 0.0
    for box, score, label in zip(outside.boxes, outside.scores, outside.classes, strict=True):
        fits = left & (inside.classes == label) & (np.abs(inside.scores - score) <= SCORE)
        apart = np.where(fits, np.abs(inside.boxes - box).max(axis=1), np.inf) if len(inside) else np.array([np.inf])
        nearest = int(np.argmin(apart))
        if apart[nearest] <= BOX_PIXELS:
            left[nearest], same, pixels = False, same + 1, max(pixels, float(apart[nearest]))
    return Agreement(max(len(inside), len(outside)), same, pixels)
