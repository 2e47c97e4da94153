"""Makes the rows of a latency table from the starts of a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eightfold.files import sha256_of_file
from eightfold.runtime.bench.interleave import LEAST_ROUNDS, Samples
from eightfold.runtime.bench.latency import LatencyRow
from eightfold.runtime.bench.modes import MODES
from eightfold.runtime.bench.start import Start, StartOptions
from eightfold.runtime.bench.starts import clocks_moved
from eightfold.runtime.bench.sweep import Swept
from eightfold.runtime.bench.timing import Timing, speedup_over_starts
from eightfold.runtime.bench.two_values import two_values


def row_of(swept: Swept, starts: Sequence[Start], memory: int | None, options: StartOptions) -> LatencyRow:
    """One candidate's row, from all starts together.

    Args:
        swept: a candidate that was measured in each start.
        starts: at least one.
        memory: peak in bytes, where it is known.
        options: of the starts.
    """
    candidate = swept.candidate
    samples, opened = [start.samples[candidate.name] for start in starts], starts[0].opened[candidate.name]
    warm_ups = [each.warm_up for each in samples]
    return LatencyRow(
        name=candidate.name,
        variant=candidate.variant,
        artifact=candidate.artifact,
        sha256=candidate.sha256 or sha256_of_file(candidate.path),
        metrics=candidate.metrics,
        backend=opened.backend,
        backend_version=opened.version,
        provider=opened.provider,
        precision=candidate.precision,
        layers=dict(candidate.layers),
        batch=candidate.batch,
        input_shapes=opened.input_shapes,
        scope=opened.scope,
        mode=options.mode,
        notes=() if options.mode == "latency" else (MODES[options.mode].note(options.mode, options.schedule.seconds),),
        threads=opened.threads,
        cores=opened.cores,
        pinned=opened.pinned,
        threads_tried_ms={str(threads): ms for threads, ms in swept.tried_ms.items()},
        warmup_runs=sum(each.runs for each in warm_ups),
        warmup_s=sum(each.seconds for each in warm_ups),
        warmup_stable=all(each.stable for each in warm_ups),
        rounds=sum(len(each.times_s) for each in samples),
        timing=Timing.of(np.concatenate([each.times_s.ravel() for each in samples])),
        start_p50_ms=tuple(float(np.nanmedian(each.uninterrupted_s)) * 1e3 for each in samples),
        two_values_ms=_two_values_ms(samples),
        interrupted=float(np.mean(np.concatenate([each.interrupted.ravel() for each in samples]))),
        clocks_moved=any(map(clocks_moved, starts)),
        peak_memory_bytes=memory,
        before=starts[0].before,
        after=starts[-1].after,
        most_others_cores=_most_others(starts),
    )


def _two_values_ms(samples: Sequence[Samples]) -> tuple[float, float] | None:
    """Of the starts, or else of the rounds within them: the change from one value to the other may come at any time."""
    rounds = [_medians_ms(each.uninterrupted_s) for each in samples]
    return two_values([float(np.median(each)) for each in rounds]) or two_values(np.concatenate(rounds))


def _medians_ms(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the rounds that are not all NaN."""
    return np.asarray(np.nanmedian(times_s[~np.isnan(times_s).all(axis=1)], axis=1) * 1e3)


def _most_others(starts: Sequence[Start]) -> float | None:
    found = [start.after.others_since(start.before) for start in starts]
    return max((cores for cores in found if cores is not None), default=None)


def with_speedup(row: LatencyRow, starts: Sequence[Start], baseline: str) -> LatencyRow:
    """The row with its speed-up over the baseline, by pairs within each start."""
    pairs = [_comparable(start.samples[baseline], start.samples[row.name]) for start in starts]
    return row.model_copy(update={"speedup": speedup_over_starts(pairs)})


def _comparable(baseline: Samples, candidate: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both without interrupted calls, or else both with them."""
    pair = baseline.uninterrupted_s, candidate.uninterrupted_s
    left = [~np.isnan(each).all(axis=1) for each in pair]
    return pair if np.count_nonzero(left[0] & left[1]) >= LEAST_ROUNDS else (baseline.times_s, candidate.times_s)
