"""Generated images with exact mattes: soft ellipses with strands, composited on textured backgrounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import PathLike, atomic_directory

LEAST_SIDE = 32
STRANDS = 24


@dataclass(frozen=True)
class MatteSample:
    """`image` (side, side, 3) uint8 RGB and `alpha` (side, side) float32 in 0..1."""

    image: NDArray[np.uint8]
    alpha: NDArray[np.float32]


def generate_mattes(count: int, side: int, *, seed: int = 0) -> Iterator[MatteSample]:
    """`count` samples; the seed fixes them all.

    >>> [sample.image.shape for sample in generate_mattes(1, 32)]
    [(32, 32, 3)]
    """
    if side < LEAST_SIDE or count < 1:
        raise UsageError(f"{count} mattes of {side} pixels", allowed=f"1 or more, of {LEAST_SIDE} pixels or more")
    for number in range(count):
        yield _sample(side, np.random.default_rng((seed, number)))


def write_mattes(directory: PathLike, *, train: int, test: int, side: int, seed: int = 0) -> Path:
    """Write `train/` and `test/`, each with `images/N.png` and `alphas/N.png` of 8 bits, whole or not at all."""
    cv2 = require("cv2", "write images")
    with atomic_directory(directory, replaces=("train", "test")) as folder:
        for part, count, offset in (("train", train, 0), ("test", test, 1)):
            for name in ("images", "alphas"):
                (folder / part / name).mkdir(parents=True)
            for number, sample in enumerate(generate_mattes(count, side, seed=2 * seed + offset)):
                cv2.imwrite(str(folder / part / f"images/{number:05d}.png"), sample.image[..., ::-1])
                pixels = np.floor(sample.alpha * 255 + 0.5).astype(np.uint8)
                cv2.imwrite(str(folder / part / f"alphas/{number:05d}.png"), pixels)
    return Path(directory)


def _sample(side: int, random: np.random.Generator) -> MatteSample:
    alpha = _alpha(side, random)
    front, back = _texture(side, random, 2), _texture(side, random, 6)
    mixed = alpha[..., None] * front + (1 - alpha[..., None]) * back
    return MatteSample(np.floor(mixed * 255 + 0.5).astype(np.uint8), alpha)


def _alpha(side: int, random: np.random.Generator) -> NDArray[np.float32]:
    """An ellipse with a soft edge, and strands that leave it and fade."""
    y, x = np.mgrid[0:side, 0:side] / side
    centre, radii = random.uniform(0.35, 0.65, 2), random.uniform(0.15, 0.3, 2)
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    alpha = np.clip((1.05 - distance) / 0.1, 0, 1)
    for angle in random.uniform(0, 2 * np.pi, STRANDS):
        along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        across = np.abs(-(x - centre[0]) * np.sin(angle) + (y - centre[1]) * np.cos(angle))
        length = float(radii.max() * random.uniform(1.1, 1.5))
        strand = np.clip(1 - across * side / 1.5, 0, 1) * np.clip((length - along) / length * 3, 0, 1) * (along > 0)
        alpha = np.maximum(alpha, strand)
    result: NDArray[np.float32] = alpha.astype(np.float32)
    return result


def _texture(side: int, random: np.random.Generator, waves: int) -> NDArray[np.float64]:
    """(side, side, 3) in 0..1: a colour and a few waves over it."""
    y, x = np.mgrid[0:side, 0:side] / side
    texture = np.broadcast_to(random.uniform(0.2, 0.8, 3), (side, side, 3)).copy()
    for _ in range(waves):
        frequency, phase = random.uniform(-8, 8, 2), random.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * (frequency[0] * x + frequency[1] * y) + phase)
        texture += wave[..., None] * random.uniform(-0.15, 0.15, 3)
    return np.clip(texture, 0, 1)
