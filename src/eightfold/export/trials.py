"""Inputs that a step is tried on beside real ones: constants, the ends of the range side by side, noise.

They reach what photographs seldom do: saturated activations, variances of zero, paddings that meet their opposite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eightfold.export.verify import Array, Arrays, random_inputs_of
from eightfold.runtime.manifest import TensorSpec

# Beyond black and white after the usual normalizations, which give -2.1 to 2.6.
EXTREME = 3.0


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
        name: {spec.name: make(spec) if _is_image(spec) else usual[spec.name] for spec in specs}
        for name, make in makers.items()
    }


def trials_of(specs: Sequence[TensorSpec], real: Arrays | None = None, seed: int = 0) -> Mapping[str, Arrays]:
    """Real inputs, where there are any and random ones else, and the adversarial ones."""
    first = {"images": real} if real is not None else {"random": random_inputs_of(specs, seed)}
    return {**first, **adversarial_inputs(specs, seed)}


def _is_image(spec: TensorSpec) -> bool:
    return spec.dtype in ("float32", "float16", "uint8") and len(spec.shape) > 1


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
