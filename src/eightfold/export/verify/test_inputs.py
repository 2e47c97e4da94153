"""Inputs that a step is tried on: real ones, and constants, the ends of the range side by side, noise.

All but the first reach what photographs seldom do: saturated activations, variances of zero, paddings that meet their
opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.errors import ModelError, UsageError
from eightfold.onnx_graph.tensor_specs import TensorSpec

# Beyond black and white after the usual normalizations, which give -2.1 to 2.6.
EXTREME = 3.0
# Enough to reach what images reach, few enough to run after every step.
COMPARED_IMAGES = 16
# What the notes of a step call values that stand for images.
RANDOM = "random values (no images given)"
EXTREMES_IN_TURN = "extremes, noise, zeros and ones"
IN_TURN = ("extremes", "noise", "zeros", "ones")

# What the notes of a step say where a comparison proves nothing.
NOT_FINITE = "the network before the step answers with NaN or infinite values"

# The inputs of some runs, by what they are.
InputSets = Mapping[str, Sequence[Arrays]]


def random_inputs_of(specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, Array]:
    """One array per input: uniform in [0, 1) for floats, pixels for integers."""
    rng = np.random.default_rng(seed)
    return {spec.name: _random(spec, rng) for spec in specs}


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    if spec.dtype in ("float32", "float16"):
        return rng.random(spec.shape, dtype=np.float32).astype(spec.dtype)
    if spec.dtype == "bool":
        return rng.integers(0, 2, spec.shape).astype(np.bool_)
    return rng.integers(0, 128 if spec.dtype == "int8" else 256, spec.shape).astype(spec.dtype)


def adversarial_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, Arrays]:
    """Named inputs for networks whose images are floats or uint8 pixels; other inputs are random in all of them."""
    usual = random_inputs_of(specs, seed)
    noise = np.random.default_rng(seed)
    makers: dict[str, Callable[[TensorSpec], Array]] = {
        "zeros": lambda spec: np.zeros(spec.shape, spec.dtype),
        "ones": lambda spec: np.full(spec.shape, _white(spec), spec.dtype),
        "extremes": _checkerboard,
        "noise": lambda spec: _noise(spec, noise),
    }
    return {
        name: {spec.name: make(spec) if _is_image(spec, specs) else usual[spec.name] for spec in specs}
        for name, make in makers.items()
    }


def adversarial_runs(specs: Sequence[TensorSpec]) -> list[Arrays]:
    """The same in as few runs as the batch allows: each row is another of them. The first axis of each input is the
    batch."""
    found, batch = adversarial_inputs(specs), specs[0].shape[0]
    count = -(-len(found) // batch) * batch
    rows = {spec.name: [found[name][spec.name][0] for name in IN_TURN] for spec in specs}
    return runs_of(specs, {name: cycled(np.stack(each), count) for name, each in rows.items()})


def input_sets_of(specs: Sequence[TensorSpec], real: Arrays | None = None, seed: int = 0) -> InputSets:
    """Real inputs, where there are any and random ones else, and the adversarial ones; see `runs_of`."""
    first = {RANDOM: [random_inputs_of(specs, seed)]} if real is None else image_inputs(runs_of(specs, real))
    return {**first, **{name: [inputs] for name, inputs in adversarial_inputs(specs, seed).items()}}


def image_inputs(runs: Sequence[Arrays]) -> InputSets:
    """Runs on images, under how many different ones these are: some may have been repeated to fill a run."""
    count = len({hash(row.tobytes()) for inputs in runs for row in next(iter(inputs.values()))})
    return {f"{count} images" if count > 1 else "1 image": runs}


def runs_of(specs: Sequence[TensorSpec], inputs: Arrays) -> list[Arrays]:
    """Inputs for several runs from arrays that hold more rows than the network's batch; what is left over is dropped.

    Raises UsageError where an array has too few rows.
    """
    batches = {spec.name: spec.shape[0] for spec in specs if spec.shape}
    counts = {name: len(inputs[name]) // batch for name, batch in batches.items() if name in inputs}
    if not counts or min(counts.values()) < 1:
        seen = ", ".join(f"{name} with {len(array)} rows" for name, array in inputs.items())
        wanted = ", ".join(f"{name} with {batch} or more" for name, batch in batches.items())
        raise UsageError(f"inputs {seen}", allowed=wanted)
    return [
        {
            name: array[run * batches[name] : (run + 1) * batches[name]] if name in batches else array
            for name, array in inputs.items()
        }
        for run in range(min(counts.values()))
    ]


def cycled(array: Array, count: int) -> Array:
    """So many rows, from the beginning again where there are too few."""
    return np.resize(array, (count, *array.shape[1:])) if len(array) != count else array


def in_turn(rows: Array, names: Iterable[str]) -> Arrays:
    """The same rows for each input, in another order for each."""
    return {name: np.roll(rows, place, axis=0) for place, name in enumerate(names)}


def whole_runs(rows: Array, batch: int) -> Array:
    """The rows in whole runs of `batch`; repeated if they do not fill one."""
    return cycled(rows, max(len(rows) // batch, 1) * batch)


def _is_image(spec: TensorSpec, specs: Sequence[TensorSpec]) -> bool:
    """A few numbers beside images are none: a scale, sizes."""
    least = 2 if len(specs) == 1 else 3
    return spec.dtype in ("float32", "float16", "uint8") and len(spec.shape) >= least


def _white(spec: TensorSpec) -> float:
    return 255 if spec.dtype == "uint8" else 1


def _checkerboard(spec: TensorSpec) -> Array:
    low, high = (0, 255) if spec.dtype == "uint8" else (-EXTREME, EXTREME)
    odd = np.indices(spec.shape).sum(axis=0) % 2
    return np.where(odd, high, low).astype(spec.dtype)


def _noise(spec: TensorSpec, rng: np.random.Generator) -> Array:
    if spec.dtype == "uint8":
        return rng.integers(0, 256, spec.shape).astype(np.uint8)
    return rng.standard_normal(spec.shape, dtype=np.float32).astype(spec.dtype)


def answers_to(
    run: Callable[[Arrays], Arrays], input_sets: InputSets
) -> tuple[dict[str, list[Arrays]], tuple[str, ...]]:
    """A network's answers to the input sets that it runs on, and a note on each of the others: graphs whose shapes
    follow from their detections may find nothing in a constant. There is a note, too, if its answers to the first set,
    images or their stand-ins, are not finite. Raises ModelError if it does not run on that."""
    answers: dict[str, list[Arrays]] = {}
    notes = []
    for name, runs in input_sets.items():
        try:
            answers[name] = [run(inputs) for inputs in runs]
        except ModelError:
            if not answers:
                raise
            notes.append(f"on {name}: not judged, the network before the step does not run on it")
    first = next(iter(answers))
    numbers = [array for answer in answers[first] for array in answer.values() if array.dtype.kind == "f"]
    if not all(np.isfinite(array).all() for array in numbers):
        notes.insert(0, f"on {first}: {NOT_FINITE}, which shows no error")
    return answers, tuple(notes)
