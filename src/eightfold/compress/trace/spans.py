"""Run-length coding of one tensor dimension: which group and channel each index belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from eightfold.compress.trace.groups import Span

Matrix = npt.NDArray[np.int64]


def runs(place: Matrix) -> list[tuple[int, tuple[Span, ...]]]:
    """Spans per group of one tensor dimension, from the (group, channel) of each of its indices."""
    group, channel = place[:, 0], place[:, 1]
    change = np.flatnonzero((np.diff(group) != 0) | (np.diff(channel) != 0)) + 1
    start = np.concatenate([[0], change])
    repeat = np.diff(np.concatenate([start, [len(group)]]))
    g, c = group[start], channel[start]
    follows = (np.diff(g) == 0) & (np.diff(c) == 1) & (np.diff(repeat) == 0)
    heads = np.flatnonzero(np.concatenate([[True], ~follows]))
    lengths = np.diff(np.concatenate([heads, [len(g)]]))
    found: dict[int, list[Span]] = {}
    for head, length in zip(heads.tolist(), lengths.tolist(), strict=True):
        span = Span(int(start[head]), int(c[head]), length, int(repeat[head]))
        found.setdefault(int(g[head]), []).append(span)
    return [(number, tuple(spans)) for number, spans in found.items()]
