"""The answers of one graph to several inputs, worked out once, and how far others are from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError
from eightfold.export.verify.intermediates.diverging import require_alike
from eightfold.export.verify.intermediates.onnx_probe import OnnxProbe
from eightfold.export.verify.intermediates.probe import Probe
from eightfold.export.verify.test_inputs import RANDOM, InputSets, answers_to
from eightfold.export.verify.verify import (
    Difference,
    Run,
    Tolerance,
    compare_arrays,
    difference,
    in_order_of,
    runner,
    step_from,
)
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Step

# What rounding its input to float32 may change of an input.
NUDGE = 1e-7
# Two orders of summation, both right, may lie this many times as far from the exact answer as each other.
AS_EXACT = 4
# What excuses an answer beyond the tolerance.
AS_NEAR = "as near to the answer in float64 as before"
NOT_JUDGED = "not judged, the network amplifies rounding there"


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """Result of one run: differences that count, and the excuse for those beyond the tolerance."""

    found: tuple[Difference, ...]
    excuse: str = ""


class Reference:
    """Outputs of a network for named sets of inputs."""

    def __init__(self, run: Run, input_sets: InputSets, probe: Probe | None = None, exact: Run | None = None) -> None:
        """`run` gives outputs by name for inputs by name; `probe` shows the tensors in between for the same inputs;
        `exact` gives the outputs as they are in float64.

        Raises:
            ModelError: the network does not run on the first trial. Another one that it does not run on is no trial.
        """
        self._run, self._probe, self._exact = run, probe, exact
        self.answers, self._notes = answers_to(run, input_sets)
        self.input_sets = {name: input_sets[name] for name in self.answers}

    @classmethod
    def of_file(cls, path: PathLike, input_sets: InputSets) -> Reference:
        """Raises ModelError where onnxruntime refuses the file."""
        return cls(runner(path), input_sets, OnnxProbe(path))

    def verify(self, after: PathLike | Run, *, step: str, tolerance: Tolerance, probe: Probe | None = None) -> Step:
        """Compare an ONNX file, or what runs it (and what shows its inner tensors), with this network on every trial;
        the step's notes hold each one's relative error.

        An answer beyond the tolerance passes where it is about as near to that in float64 as this network's own: deep
        networks amplify the rounding of float32, and there is nothing nearer to ask for. Nor is a row judged, but of
        images, on which this network itself moves as much when its input moves by a rounding error (a normalization of
        a constant image amplifies rounding without bound, and so does a network that sees nothing it knows).

        Raises:
            VerificationError: beyond the tolerance; the message names the trial and the first tensor that differs.
        """
        run, probe = (after, probe) if callable(after) else (runner(after), OnnxProbe(after))
        judged: list[Difference] = []
        notes = [*self._notes]
        for place, (name, runs) in enumerate(self.input_sets.items()):
            verdicts = []
            for inputs, known in zip(runs, self.answers[name], strict=True):
                verdict = self._verdict(inputs, known, run(inputs), tolerance, real=place == 0 and name != RANDOM)
                if not verdict.excuse:
                    probes = self._probe, probe
                    require_alike(verdict.found, tolerance, step=f"{step} (on {name})", probes=probes, inputs=inputs)
                verdicts.append(verdict)
            judged += [item for each in verdicts if place == 0 or not each.excuse for item in each.found]
            notes.append(f"on {name}: {_words(verdicts)}")
        return step_from(judged, name=step, notes=notes)

    def _verdict(self, inputs: Arrays, known: Arrays, seen: Arrays, tolerance: Tolerance, *, real: bool) -> _Verdict:
        found = compare_arrays(known, seen)
        if not any(item.beyond(tolerance) for item in found):
            return _Verdict(found)
        if self._is_as_exact(inputs, known, seen):
            return _Verdict(found, AS_NEAR)
        if not real and self._moves_as_much(inputs, known, seen, tolerance):
            return _Verdict(found, NOT_JUDGED)
        return _Verdict(found)

    def _moves_as_much(self, inputs: Arrays, known: Arrays, seen: Arrays, tolerance: Tolerance) -> bool:
        """True if the rows beyond the tolerance are rows that this network moves as far itself."""
        rng = np.random.default_rng(0)
        moved = self._run({key: _nudged(array, rng) for key, array in inputs.items()})
        tensors = zip(known.values(), moved.values(), in_order_of(known, seen), strict=True)
        left = [difference("", *_steady_rows(*each)) for each in tensors]
        return not any(item.beyond(tolerance) for item in left)

    def _is_as_exact(self, inputs: Arrays, known: Arrays, seen: Arrays) -> bool:
        """True if another answer is about as near to that in float64 as this network's own."""
        if self._exact is None:
            return False
        try:
            exact = self._exact(inputs)
        except ModelError:  # some networks state float32 in their code
            return False
        own, theirs = compare_arrays(exact, known), compare_arrays(exact, seen)
        return all(AS_EXACT * a.max_abs_error >= b.max_abs_error for a, b in zip(own, theirs, strict=True))


def _words(verdicts: Sequence[_Verdict]) -> str:
    """A step's note on the runs of one set of inputs."""
    measured = [item.max_rel_error for each in verdicts if each.excuse != NOT_JUDGED for item in each.found]
    excuses = sorted({each.excuse for each in verdicts if each.excuse})
    return ", ".join([*([f"relative error {max(measured):.2g}"] if measured else []), *excuses])


def _steady_rows(known: Array, moved: Array, seen: Array) -> tuple[Array, Array]:
    """The rows of two answers but those in which the first one's own movement is at least half their distance."""
    known, moved, seen = (np.atleast_1d(each) for each in (known, moved, seen))
    if moved.shape != known.shape:  # sizes that follow from what is detected moved as well
        return known[:0], seen[:0]
    steady = ~(2 * _largest_per_row(known, moved) >= _largest_per_row(known, seen))  # NaN counts as steady
    return known[steady], seen[steady]


def _largest_per_row(first: Array, second: Array) -> Array:
    with np.errstate(invalid="ignore"):
        apart = np.abs(first.astype(np.float64) - second.astype(np.float64))
    largest: Array = apart.reshape(len(apart), -1).max(axis=1, initial=0.0)
    return largest


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    scale = NUDGE * max(1.0, float(np.max(np.abs(array), initial=0.0)))
    return (array + scale * rng.choice([-1.0, 1.0], array.shape)).astype(array.dtype)
