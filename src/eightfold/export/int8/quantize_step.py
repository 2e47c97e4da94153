"""INT8 rounds on purpose: compares the graph with the float graph that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eightfold.arrays import Arrays
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import VerificationError
from eightfold.export.int8 import output_errors
from eightfold.export.int8.calibration_inputs import calibration_inputs
from eightfold.export.int8.decoded_errors import DecodedErrors, decoded_errors, size_of_images
from eightfold.export.int8.output_errors import OutputError
from eightfold.export.verify.intermediates.diverging import first_beyond
from eightfold.export.verify.precision_check import ComparedNetwork, answers_of_both
from eightfold.export.verify.verify import Difference, Tolerance, difference
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Step, Task


@dataclass(frozen=True)
class QuantizedAnswers:
    """Comparison of an INT8 graph with its float original: the step for the manifest, and the errors of each output on
    the images; none where there were no images."""

    step: Step
    errors: tuple[OutputError, ...]
    decoded: DecodedErrors | None = None


def verify_quantized(
    before: PathLike,
    after: PathLike,
    images: ImageSource | None,
    preprocess: Preprocess | None,
    *,
    target: str,
    sizes: Mapping[str, float] | None = None,
    task: Task | None = None,
) -> QuantizedAnswers:
    """Compare an INT8 graph with its float original on some images and on constants, extremes and noise.

    Args:
        before, after: the two files.
        images, preprocess: as for `calibrate`. None: random values, on which the difference is not judged.
        target: what the graph is for, as the step's name says.
        task: what the outputs mean; decoded answers are compared as well.
        sizes: root mean square that the values of an output could have, by name, as far as the graph tells.

    Raises:
        VerificationError: an output of several numbers has a cosine below 0.5 over all images together, and is not
            near zero; or an answer is not finite where it was.
    """
    input_sets = calibration_inputs(before, images, preprocess)
    name = f"quantize for {target}"
    networks = ComparedNetwork.of(before), ComparedNetwork.of(after)
    both, notes = answers_of_both(*networks, input_sets, step=name)
    (first, (known, seen)), *_ = both.items()
    errors: tuple[OutputError, ...] = ()
    if images is not None:
        reached = _largest([answer for answers, _ in both.values() for answer in answers])
        errors = output_errors.output_errors(
            known, seen, {key: max(reached[key], (sizes or {}).get(key, 0.0)) for key in reached}
        )
        _require_unbroken(errors, f"{name} (on {first})", networks, input_sets[first][0])
    decoded = None
    if images is not None and task is not None:
        decoded = decoded_errors(task, known, seen, size_of_images(next(iter(input_sets[first][0].values())).shape))
    figures = {trial: _differences(*answers) for trial, answers in both.items()}
    words = [f"on {trial}: {_words(found)}" for trial, found in figures.items()]
    judged = [f"on {first}, {each.describe()}" for each in errors if _says_more(each, errors)]
    decoded_notes = [] if decoded is None else [f"on {first}, {decoded.describe()}"]
    return QuantizedAnswers(_step(name, figures[first], [*words, *decoded_notes, *judged, *notes]), errors, decoded)


def _require_unbroken(
    errors: Sequence[OutputError], step: str, networks: tuple[ComparedNetwork, ComparedNetwork], inputs: Arrays
) -> None:
    for each in errors:
        if each.broken:
            limit = Tolerance(cosine=output_errors.LEAST_COSINE)
            tensor = first_beyond(networks[0].probe, networks[1].probe, inputs, limit) or each.output
            raise VerificationError(
                f"{step} changed output {each.output!r}: cosine {each.cosine:.6f}, {each.sqnr_db:.1f} dB; "
                f"first diverging tensor: {tensor!r}",
                allowed="a cosine of 0.5 or more over all images",
                remedy="name the layers to leave in float (keep_float=..., --keep-float), which `eightfold debug-int8` "
                "and --min-sqnr find; or calibrate with more images. The float file was left as it was",
            )


def _largest(answers: Sequence[Arrays]) -> dict[str, float]:
    """The largest root mean square of each output of floats."""
    found: dict[str, float] = {}
    for answer in answers:
        for name, array in answer.items():
            finite = array[np.isfinite(array)].astype(np.float64) if array.dtype.kind == "f" else np.zeros(0)
            size = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
            found[name] = max(found.get(name, 0.0), size)
    return found


def _differences(known: Sequence[Arrays], seen: Sequence[Arrays]) -> list[Difference]:
    """Of each output over all runs together; those whose size follows from what is found left out."""
    found = []
    for name in known[0]:
        pairs = [(before[name], after[name]) for before, after in zip(known, seen, strict=True)]
        if all(before.shape == after.shape for before, after in pairs):
            whole, other = (np.concatenate([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
            with np.errstate(all="ignore"):  # what is not finite is told apart
                found.append(difference(name, whole, other))
    return found


def _step(name: str, found: Sequence[Difference], notes: Sequence[str]) -> Step:
    if not found:
        return Step(name=name, notes=tuple(notes))
    return Step(
        name=name,
        max_abs_error=max(item.max_abs_error for item in found),
        max_rel_error=max(item.max_rel_error for item in found),
        cosine=min(item.cosine for item in found),
        notes=tuple(notes),
    )


def _words(found: Sequence[Difference]) -> str:
    if not found:
        return "not compared, its size follows from what is found"
    error, cosine = max(item.max_rel_error for item in found), min(item.cosine for item in found)
    return f"relative error {error:.2g}, cosine {cosine:.4f}"


def _says_more(each: OutputError, errors: Sequence[OutputError]) -> bool:
    """True if the figures of the whole step do not show it."""
    return len(errors) > 1 or bool(each.groups) or each.cosine is None or each.near_zero
