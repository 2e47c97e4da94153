"""Verifies steps that round on purpose: 16 bits, INT8, kernels of another library.

On images its answer has to be within a tolerance. Neither types nor ranges were chosen for constants, extremes and
noise, which is what a camera gives that is covered or over-exposed: how far the answer moves there is recorded and not
judged, but it has to be finite where it was before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError, VerificationError
from eightfold.export.verify.intermediates.diverging import first_not_finite, require_alike
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import Probe
from eightfold.export.verify.test_inputs import InputSets, answers_to
from eightfold.export.verify.verify import Difference, Tolerance, compare_arrays, in_order_of, runner, step_from
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import onnx


@dataclasses.dataclass(frozen=True)
class ComparedNetwork:
    """A runner, and a probe of its intermediate tensors."""

    run: Callable[[Arrays], Arrays]
    probe: Probe | None

    @classmethod
    def of(cls, source: PathLike | onnx.ModelProto) -> ComparedNetwork:
        """An ONNX file or graph. Raises ModelError where onnxruntime refuses it."""
        return cls(runner(source), OnnxProbe(source))


def verify_precision(
    before: ComparedNetwork, after: ComparedNetwork, input_sets: InputSets, *, step: str, tolerance: Tolerance
) -> Step:
    """Compare a network with what a step made of it.

    Args:
        before, after: both take these inputs.
        input_sets: the first one is judged and gives the step's figures; those of the others go to its notes.
        step: its name.
        tolerance: on the first trial.

    Raises:
        VerificationError: beyond the tolerance on the first trial, or not finite on any where the network before the
            step is; the message names the first tensor that differs, or that is not finite.
    """
    answers, notes = answers_to(before.run, input_sets)
    figures: dict[str, tuple[Difference, ...]] = {}
    for name, known in answers.items():
        asked = _Asked(before, after, f"{step} (on {name})", Tolerance() if figures else tolerance)
        pairs = zip(input_sets[name], known, strict=True)
        figures[name] = tuple(item for inputs, answer in pairs for item in asked.compared(inputs, answer))
    first = next(iter(figures.values()))
    found = [f"on {name}: {_words(items)}" for name, items in figures.items()]
    return step_from(first, name=step, notes=[*found, *notes])


def answers_of_both(
    before: ComparedNetwork, after: ComparedNetwork, input_sets: InputSets, *, step: str
) -> tuple[dict[str, tuple[list[Arrays], list[Arrays]]], tuple[str, ...]]:
    """Outputs of a network before and after a step, by input set, with notes on sets that show nothing.

    Raises:
        VerificationError: an answer is not finite where that of the network before the step is.
    """
    answers, notes = answers_to(before.run, input_sets)
    both = {}
    for name, known in answers.items():
        asked = _Asked(before, after, f"{step} (on {name})", Tolerance())
        pairs = zip(input_sets[name], known, strict=True)
        both[name] = known, [asked.answered(inputs, answer) for inputs, answer in pairs]
    return both, notes


@dataclasses.dataclass(frozen=True)
class _Asked:
    before: ComparedNetwork
    after: ComparedNetwork
    step: str
    tolerance: Tolerance

    def compared(self, inputs: Arrays, known: Arrays) -> tuple[Difference, ...]:
        seen = self.after.run(inputs)
        with np.errstate(all="ignore"):  # what is not finite is told apart
            found = compare_arrays(known, seen)
        self.require_finite(inputs, known, seen)
        probes = self.before.probe, self.after.probe
        require_alike(found, self.tolerance, step=self.step, probes=probes, inputs=inputs)
        return found

    def answered(self, inputs: Arrays, known: Arrays) -> Arrays:
        """The answer of the network after the step, which has to be finite where it was before."""
        seen = self.after.run(inputs)
        self.require_finite(inputs, known, seen)
        return dict(zip(known, in_order_of(known, seen), strict=True))

    def require_finite(self, inputs: Arrays, known: Arrays, seen: Arrays) -> None:
        output = _lost_output(known, seen)
        if output:
            inner = _first_inside(self.before, self.after, inputs) or output
            raise VerificationError(
                f"{self.step} left output {output!r} not finite; first tensor that is not: {inner!r}",
                allowed="finite answers where they were finite",
                remedy="the file from before the step was left as it was",
            )


def first_lost(before: ComparedNetwork, after: ComparedNetwork, inputs: Arrays) -> str:
    """The name of the first tensor that is not finite in `after` and was before, where an output is such a one or
    follows from it; "" where all are as they were, or the network before does not run on these inputs."""
    try:
        known = before.run(inputs)
    except ModelError:
        return ""
    output = _lost_output(known, after.run(inputs))
    return output and (_first_inside(before, after, inputs) or output)


def _lost_output(known: Arrays, seen: Arrays) -> str:
    pairs = zip(known.items(), in_order_of(known, seen), strict=True)
    return next((name for (name, array), other in pairs if _is_lost(array, other)), "")


def _is_lost(array: Array, other: Array) -> bool:
    if array.shape != other.shape:  # its size follows from what is found
        return bool(np.isfinite(array).all() and not np.isfinite(other).all())
    return bool(np.any(np.isfinite(array) & ~np.isfinite(other)))


def _first_inside(before: ComparedNetwork, after: ComparedNetwork, inputs: Arrays) -> str:
    if before.probe is None or after.probe is None:
        return ""
    try:
        return first_not_finite(before.probe, after.probe, inputs)
    except ModelError:  # some graphs run as a whole only
        return ""


def _words(found: tuple[Difference, ...]) -> str:
    error, cosine = max(item.max_rel_error for item in found), min(item.cosine for item in found)
    return f"relative error {error:.2g}, cosine {cosine:.4f}"
