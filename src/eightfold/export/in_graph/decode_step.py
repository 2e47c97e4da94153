"""Adds the detection decoder to a graph, and compares it with the runtime's decoder on the original outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eightfold.arrays import Arrays
from eightfold.calib.images.geometry import Placement
from eightfold.errors import VerificationError
from eightfold.export.in_graph.box_heads import Size
from eightfold.export.in_graph.detection_agreement import LEAST_AGREEMENT, SCORE, agreement, differing_part
from eightfold.export.in_graph.detections import Form, with_detections
from eightfold.export.verify.intermediates.diverging import first_diverging
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.test_inputs import input_sets_of
from eightfold.export.verify.verify import Tolerance, runner, with_outputs
from eightfold.files import PathLike
from eightfold.onnx_graph.onnx_files import input_specs, load_onnx, save_onnx
from eightfold.runtime.bundle.manifest import Step, Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Detections

if TYPE_CHECKING:
    import onnx

STEP = "decode in graph"
# What lies before the decoder is to be what it was.
SAME = Tolerance(max_rel_error=1e-4)
# A few units in the last place of float32.
ROUNDING = 5e-7
# So many detections per image are compared at least, where the network has them at any score.
COMPARED = 100


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
        VerificationError: less than 99% of the detections are the decoder's, where rounding changes fewer; the message
            names the first tensor that differs. The file is left as it was.
    """
    path = Path(path)
    model = load_onnx(path)
    made, decoded = with_detections(model, task, size, form=form)
    raw = runner(path)
    input_sets = input_sets_of(input_specs(model), inputs)
    answers = {name: [raw(each) for each in runs] for name, runs in input_sets.items()}
    wide = _with_threshold(task, min(_low_threshold(task, size, answer) for answer in next(iter(answers.values()))))
    # The plugin runs on its device only: the other form has the same candidates.
    compared = _Compared(model, wide, size, *with_detections(model, wide, size))
    run = runner(compared.graph)
    notes: list[str] = []
    worst = 0.0
    for name, runs in input_sets.items():
        words, pixels = compared.verified(name, runs, answers[name], [run(each) for each in runs])
        notes.append(words)
        worst = max(worst, pixels)
    save_onnx(made, path)
    if form == "efficient":
        notes.append("compared with NonMaxSuppression in the plugin's place")
    return decoded, Step(name=STEP, tool=form, max_abs_error=worst, notes=tuple(notes))


@dataclasses.dataclass(frozen=True, eq=False)
class _Compared:
    """A detector whose raw outputs the runtime decodes, and its graph that decodes them itself.

    Attributes:
        task, graph_task: what their outputs mean.
        size: (height, width) of the input in pixels.
    """

    raw: onnx.ModelProto
    task: Task
    size: Size
    graph: onnx.ModelProto
    graph_task: Task

    def verified(
        self, name: str, runs: Sequence[Arrays], raw: Sequence[Arrays], decoded: Sequence[Arrays]
    ) -> tuple[str, float]:
        """The note on a set of inputs, from both answers to its runs, and the largest distance of boxes in pixels."""
        outside = [_decoded(self.task, self.size, answer) for answer in raw]
        inside = [_decoded(self.graph_task, self.size, answer) for answer in decoded]
        found = agreement(inside, outside)
        words = f"on {name}: {found.same} of {found.found} detections the same"
        if found.enough:
            return words, found.pixels
        first = self._first_diverging(runs)
        if not first:
            nudged = [_decoded(self.task, self.size, _nudged(answer)) for answer in raw]
            if not agreement(nudged, outside).enough:
                # Saturated scores are equal but for rounding, and rounding decides who goes first.
                return f"{words}; not judged, as few are when the outputs are rounded otherwise", found.pixels
            first = f"{differing_part(inside, outside)} of {self.graph.graph.output[0].name}"
        raise VerificationError(
            f"{STEP} {words}; first diverging tensor: {first!r}", allowed=f"at least {LEAST_AGREEMENT:.0%}"
        )

    def _first_diverging(self, runs: Sequence[Arrays]) -> str:
        """In what was there before the decoder; "" where that is the same."""
        made = {name for node in self.graph.graph.node for name in node.output}
        kept = [value.name for value in self.raw.graph.output if value.name in made]
        if not kept:
            return ""
        copy = type(self.raw)()
        copy.CopyFrom(self.raw)
        probes = OnnxProbe(with_outputs(copy, kept)), OnnxProbe(self.graph)
        found = (first_diverging(*probes, (inputs, inputs), SAME) for inputs in runs)
        return next(filter(None, found), "")


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
