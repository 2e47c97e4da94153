"""Functions on scores that several decoders share."""

from __future__ import annotations

import numpy as np

from eightfold.arrays import Array


def softmax(logits: Array, axis: int = -1) -> Array:
    """Softmax along `axis`, without overflow."""
    shifted = np.exp(logits - logits.max(axis=axis, keepdims=True))
    result: Array = shifted / shifted.sum(axis=axis, keepdims=True)
    return result


def sigmoid(logits: Array) -> Array:
    """By way of tanh, which saturates where exp would overflow; good to 1e-7."""
    result: Array = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))
    return result


def logit(probability: float) -> float:
    """Inverse of the sigmoid; infinite at 0 and 1."""
    if not 0 < probability < 1:
        return -np.inf if probability <= 0 else np.inf
    return float(np.log(probability / (1 - probability)))
