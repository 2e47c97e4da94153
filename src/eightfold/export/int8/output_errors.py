"""Errors of each output of an INT8 graph over all images together, and of its channel groups by themselves.

A cosine over a whole detector is ruled by its boxes, which are in pixels: scores may be lost without a trace. So
channels whose values are of one size form a group, and each group has a signal to noise ratio of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from eightfold.arrays import Array, Arrays
from eightfold.export.verify.sqnr import sqnr_db
from eightfold.values import Frozen

Floats = npt.NDArray[np.float64]
# A ratio of 10 dB: the error has a third of the signal's size.
LEAST_DB = 10.0
# Below it an output of several numbers has another direction, if it is not near zero.
LEAST_COSINE = 0.5
# Share of the size that an output could have, up to which an error is that of 8 bits and not of a broken graph.
SMALL_ERROR = 0.1
# How much larger the values of one channel may be than those of another in the same group.
SAME_SIZE = 10.0
MOST_CHANNELS = 4096


class GroupError(Frozen):
    """Channels [first, last] of an output, whose values are of one size."""

    first: int
    last: int
    sqnr_db: float


class OutputError(Frozen):
    """One output over all images.

    Args:
        output: its name.
        sqnr_db: 10 log10 of the signal's energy over the error's; None for labels, masks and sizes that differ.
        cosine: of the angle to the float answer; None where the answer is one number.
        agreement: share of equal values, of integers and booleans.
        groups: of channels of different sizes, where there are several.
        near_zero: the error is small against the values that the output could have.
    """

    output: str
    sqnr_db: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    groups: tuple[GroupError, ...] = ()
    near_zero: bool = False

    @property
    def broken(self) -> bool:
        """True where an answer of several numbers points elsewhere, and is not one near zero."""
        return self.cosine is not None and not self.cosine >= LEAST_COSINE and not self.near_zero

    @property
    def least_db(self) -> float | None:
        """The lowest ratio of the output and its groups."""
        found = [each.sqnr_db for each in self.groups]
        return min([self.sqnr_db, *found]) if self.sqnr_db is not None else None

    @property
    def parts_db(self) -> list[float]:
        """The ratios of the groups, of the output where it has none; empty for labels and masks."""
        return [each.sqnr_db for each in self.groups] or ([] if self.sqnr_db is None else [self.sqnr_db])

    def describe(self) -> str:
        if self.agreement is not None:
            return f"{self.output}: {self.agreement:.1%} of its values agree"
        if self.sqnr_db is None:
            return f"{self.output}: its size follows from what is found, not compared"
        groups = ", ".join(f"channels {each.first} to {each.last} {each.sqnr_db:.1f} dB" for each in self.groups)
        words = f"{self.output}: {self.sqnr_db:.1f} dB" + (f" ({groups})" if groups else "")
        return f"{words}, an answer near zero" if self.near_zero and (self.least_db or 0) < LEAST_DB else words


def output_errors(
    known: Sequence[Arrays], seen: Sequence[Arrays], sizes: Mapping[str, float]
) -> tuple[OutputError, ...]:
    """The errors of all outputs.

    Args:
        known, seen: the answers of the float graph and of the other one to the same runs, by output.
        sizes: root mean square that the values of an output could have, by name.
    """
    found = []
    for name in known[0]:
        pairs = [(before[name], after[name]) for before, after in zip(known, seen, strict=True)]
        if any(before.shape != after.shape for before, after in pairs):
            found.append(OutputError(output=name))
        elif pairs[0][0].dtype.kind != "f":
            equal = [np.equal(*pair).reshape(-1) for pair in pairs]
            found.append(OutputError(output=name, agreement=float(np.concatenate(equal).mean())))
        else:
            found.append(_float_error(name, pairs, sizes.get(name, 0.0)))
    return tuple(found)


def mean_db(ratios: Sequence[float]) -> float:
    """One ratio of several: that of the mean share of noise, which the worst rules."""
    return float(-10 * np.log10(np.mean(np.power(10.0, -np.asarray(ratios) / 10))))


def _float_error(name: str, pairs: Sequence[tuple[Array, Array]], size: float) -> OutputError:
    kept = [np.isfinite(before) & np.isfinite(after) for before, after in pairs]
    before, after = (
        [np.where(mask, pair[side], 0).astype(np.float64) for pair, mask in zip(pairs, kept, strict=True)]
        for side in (0, 1)
    )
    whole, other = (np.concatenate([each.reshape(-1) for each in arrays]) for arrays in (before, after))
    error = other - whole
    several = any(array[0].size > 1 if array.ndim else False for array in before)
    norms = float(np.linalg.norm(whole) * np.linalg.norm(other))
    cosine = float(whole @ other / norms) if norms > 0 else (1.0 if not error.any() else 0.0)
    rms = float(np.sqrt(np.mean(error**2))) if error.size else 0.0
    return OutputError(
        output=name,
        sqnr_db=sqnr_db(float(whole @ whole), float(error @ error)),
        cosine=cosine if several else None,
        groups=_groups_of(before, after),
        near_zero=rms <= SMALL_ERROR * size,
    )


def _groups_of(before: Sequence[Floats], after: Sequence[Floats]) -> tuple[GroupError, ...]:
    axis = channel_axis(before[0].shape)
    if axis is None:
        return ()
    signal, error = (
        np.sum([channel_energy(each, axis) for each in arrays], axis=0)
        for arrays in (before, [a - b for a, b in zip(after, before, strict=True)])
    )
    return channel_groups(signal, error)


def channel_groups(signal: Floats, error: Floats) -> tuple[GroupError, ...]:
    """Neighbouring channels whose values are of one size, from each channel's energies; nothing where all are."""
    level = np.sqrt(signal)
    starts = [0]
    low = high = level[0]
    for channel in range(1, len(level)):
        low, high = min(low, level[channel]), max(high, level[channel])
        if high > SAME_SIZE * low:
            starts.append(channel)
            low = high = level[channel]
    if len(starts) > len(level) // 2:  # scores of common and rare classes
        starts = _halves(level)
    if len(starts) == 1:
        return ()
    ends = [*starts[1:], len(level)]
    return tuple(
        GroupError(first=a, last=b - 1, sqnr_db=sqnr_db(float(signal[a:b].sum()), float(error[a:b].sum())))
        for a, b in zip(starts, ends, strict=True)
    )


def _halves(level: Floats) -> list[int]:
    """Starts of two groups of which all of one is larger than all of the other, as boxes in pixels are than scores; of
    one where there is no such place."""
    log = np.log(np.maximum(level, 1e-12))
    if len(log) < 2:
        return [0]
    gaps = [max(log[:at].min() - log[at:].max(), log[at:].min() - log[:at].max()) for at in range(1, len(log))]
    best = int(np.argmax(gaps))
    return [0, best + 1] if gaps[best] > np.log(SAME_SIZE) else [0]


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The second axis; of three the shorter one of the last two, as boxes are many and their numbers few. The numbers
    of a vector, such as logits, are judged together."""
    if len(shape) < 3:
        return None
    axis = 2 if len(shape) == 3 and shape[2] < shape[1] else 1
    return axis if 4 < shape[axis] <= MOST_CHANNELS else None


def channel_energy(values: Floats, axis: int) -> Floats:
    """The sum of squares of each channel."""
    energy: Floats = np.square(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)).sum(axis=1)
    return energy
