"""The answers of one graph to several inputs, worked out once, and how far others are from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eightfold.errors import ModelError
from eightfold.export.checks import require_alike
from eightfold.export.inner.onnx_probe import OnnxProbe
from eightfold.export.inner.probe import Probe
from eightfold.export.trials import adversarial_inputs
from eightfold.export.verify import (
    Array,
    Arrays,
    Difference,
    Tolerance,
    compare,
    runner,
    step_from,
)
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step, TensorSpec

Run = Callable[[Arrays], Arrays]
# What rounding its input to float32 may change of an input.
NUDGE = 1e-7
# Two orders of summation, both right, may lie this many times as far from the exact answer as each other.
AS_EXACT = 4


class Reference:
    """What a network answers on each of some named inputs ("trials")."""

    def __init__(
        self, run: Run, trials: Mapping[str, Arrays], probe: Probe | None = None, exact: Run | None = None
    ) -> None:
        """`run` gives outputs by name for inputs by name; `probe` shows the tensors in between for the same inputs;
        `exact` gives the outputs as they are in float64.

        Raises:
            ModelError: the network does not run on the first trial. Another one that it does not run on is no trial:
                graphs whose shapes follow from what they detect may find nothing in it.
        """
        self._run, self._probe, self._exact = run, probe, exact
        self.answers, self._notes = _answers(run, trials)
        self.trials = {name: trials[name] for name in self.answers}

    @classmethod
    def of_file(cls, path: PathLike, trials: Mapping[str, Arrays]) -> Reference:
        """Raises ModelError where onnxruntime refuses the file."""
        return cls(runner(path), trials, OnnxProbe(path))

    def verify(self, after: PathLike | Run, *, step: str, tolerance: Tolerance, probe: Probe | None = None) -> Step:
        """Compare an ONNX file, or what runs it (and what shows its inner tensors), with this network on every trial;
        the step's notes hold each one's relative error.

        An answer beyond the tolerance passes where it is about as near to that in float64 as this network's own: deep
        networks amplify the rounding of float32, and there is nothing nearer to ask for. Nor is a later trial judged
        on which this network itself moves as much when its input moves by a rounding error (a normalization of a
        constant image amplifies rounding without bound).

        Raises:
            VerificationError: beyond the tolerance; the message names the trial and the first tensor that differs.
        """
        run, probe = (after, probe) if callable(after) else (runner(after), OnnxProbe(after))
        judged: list[Difference] = []
        notes = [*self._notes]
        for place, (name, inputs) in enumerate(self.trials.items()):
            seen = run(inputs)
            found = compare(self.answers[name], seen)
            words = f"on {name}: relative error {max(item.max_rel_error for item in found):.2g}"
            beyond = any(item.beyond(tolerance) for item in found)
            if beyond and self._is_as_exact(name, seen):
                notes.append(f"{words}, as near to the answer in float64 as before")
                judged += found if place == 0 else []
                continue
            if beyond and place and self._is_unstable(name, found):
                notes.append(f"on {name}: not judged, the network amplifies rounding there")
                continue
            probes = self._probe, probe
            require_alike(found, tolerance, step=f"{step} (on {name})", probes=probes, inputs=inputs)
            judged += found
            notes.append(words)
        return step_from(judged, name=step, notes=notes)

    def _is_unstable(self, name: str, found: tuple[Difference, ...]) -> bool:
        rng = np.random.default_rng(0)
        nudged = {key: _nudged(array, rng) for key, array in self.trials[name].items()}
        moved = compare(self.answers[name], self._run(nudged))
        return all(2 * own.max_abs_error >= item.max_abs_error for own, item in zip(moved, found, strict=True))

    def _is_as_exact(self, name: str, seen: Arrays) -> bool:
        """Whether another answer is about as near to that in float64 as this network's own."""
        if self._exact is None:
            return False
        try:
            exact = self._exact(self.trials[name])
        except ModelError:  # some networks state float32 in their code
            return False
        own, theirs = compare(exact, self.answers[name]), compare(exact, seen)
        return all(AS_EXACT * a.max_abs_error >= b.max_abs_error for a, b in zip(own, theirs, strict=True))


def _answers(run: Run, trials: Mapping[str, Arrays]) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """What a network answers on the trials it runs on, and words on the others."""
    answers, notes = {}, []
    for name, inputs in trials.items():
        try:
            answers[name] = run(inputs)
        except ModelError:
            if not answers:
                raise
            notes.append(f"on {name}: not judged, the network before the step does not run on it")
    return answers, tuple(notes)


def notes_on_trials(known: Run, seen: Run, specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """How alike two networks answer on constants, extremes and noise, in words: for steps that round on purpose, of
    which nothing is asked there."""
    with np.errstate(all="ignore"):  # what overflows in 16 bits shows as a cosine of nan
        found = {name: compare(known(inputs), seen(inputs)) for name, inputs in adversarial_inputs(specs).items()}
    return tuple(f"on {name}: cosine {min(item.cosine for item in items):.4f}" for name, items in found.items())


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind != "f":
        return array
    scale = NUDGE * max(1.0, float(np.max(np.abs(array), initial=0.0)))
    return (array + scale * rng.choice([-1.0, 1.0], array.shape)).astype(array.dtype)
