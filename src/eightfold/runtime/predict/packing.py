"""Cutting N images into the batch sizes that a bundle has."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def pack(count: int, batches: tuple[int, ...]) -> tuple[int, ...]:
    """The batches to run for `count` images: the fewest padded rows, and among those the fewest calls.

    Args:
        count: number of images, at least 1.
        batches: the sizes there are.

    Returns:
        sizes, largest first; only the last may be partly filled.

    >>> pack(7, (1, 2, 4, 8))
    (4, 2, 1)
    >>> pack(7, (4, 8))
    (8,)
    """
    largest = max(batches)
    # Beyond the largest size squared, every count that can be reached can be reached with the largest size first.
    whole = max(0, count - largest * largest) // largest
    return (largest,) * whole + _best(count - whole * largest, tuple(sorted(batches)))


def _best(count: int, batches: tuple[int, ...]) -> tuple[int, ...]:
    """The same by dynamic programming: `plans[n]` is the best (padding, calls, sizes) for n images."""
    plans: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    for left in range(1, count + 1):
        plans.append(min(_with(plans[max(0, left - size)], size, left) for size in batches))
    return tuple(sorted(plans[count][2], reverse=True))


def _with(plan: tuple[int, int, tuple[int, ...]], size: int, left: int) -> tuple[int, int, tuple[int, ...]]:
    padding, calls, sizes = plan
    return padding + max(0, size - left), calls + 1, (*sizes, size)
