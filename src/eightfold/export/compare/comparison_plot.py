"""The error along the network, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eightfold.errors import UsageError
from eightfold.export.compare.comparison import Comparison, shortened
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path

SMALLEST_SHOWN = 1e-9  # a logarithmic axis has no zero
NAMED_IN_PLOT = 3
# Of the plot's width: two names that grow towards each other.
NAMES_APART = 0.37
TITLE_WIDTH = 60


def plot_comparison(comparison: Comparison | Sequence[Comparison], path: PathLike) -> Path:
    """A plot of the error along the network: relative error and 1 - cosine of each tensor on a logarithmic axis, the
    worst ones named, and a line where the two part. Several comparisons stand one below the other."""
    plt = require("matplotlib.pyplot", "plot a comparison")
    drawn = [comparison] if isinstance(comparison, Comparison) else list(comparison)
    figure, axes = plt.subplots(len(drawn), figsize=(10, 1 + 4 * len(drawn)), layout="constrained", squeeze=False)
    for axis, each in zip(axes[:, 0], drawn, strict=True):
        _draw(axis, each)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)
    return Path(path)


def require_plot_format(path: PathLike | None) -> None:
    """Refuses, before the work, a file name without a picture format."""
    if path is None:
        return
    require("matplotlib", "plot a comparison")
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    suffix = Path(path).suffix.lower()
    if suffix.removeprefix(".") not in known:
        raise UsageError(f"{path} as a plot", allowed=f"a name that ends in .{', .'.join(known)}")


def _draw(axes: Any, comparison: Comparison) -> None:
    rows = [layer.difference for layer in comparison.layers if layer.difference] + list(comparison.outputs)
    names = [row.tensor for row in rows]
    errors = [max(row.max_rel_error, SMALLEST_SHOWN) for row in rows]
    angles = [max(1 - row.cosine, SMALLEST_SHOWN) for row in rows]
    axes.semilogy(range(len(rows)), errors, ".-", linewidth=0.8, label="max relative error")
    axes.semilogy(range(len(rows)), angles, ".-", linewidth=0.8, label="1 - cosine")
    parting = _parting(comparison)
    if parting is not None:
        axes.axvline(parting, color="tab:red", linewidth=0.8, label=f"parts at {shortened(comparison.first_beyond)}")
    for place in _worst_apart(errors):
        left = place < len(rows) / 2
        beside = {"xytext": (3 if left else -3, 7), "textcoords": "offset points", "ha": "left" if left else "right"}
        ground = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
        axes.annotate(shortened(names[place], 32), (place, errors[place]), fontsize=8, bbox=ground, **beside)
    axes.set(xlabel="layer, in order of computation; outputs last", ylabel="error")
    axes.set_ylim(top=max(*errors, *angles, 1e-6) * 4)  # room for the names
    titles = [shortened(Path(name).name, TITLE_WIDTH) for name in (comparison.first, comparison.second)]
    axes.set_title(" against ".join(titles), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()


def _parting(comparison: Comparison) -> float | None:
    """The position from which the two differ, among the layers that are drawn: half a step before the first of
    those."""
    names = [layer.tensor for layer in comparison.layers]
    if comparison.first_beyond not in names:
        return None
    before = comparison.layers[: names.index(comparison.first_beyond)]
    return sum(layer.difference is not None for layer in before) - 0.5


def _worst_apart(errors: Sequence[float]) -> list[int]:
    """Places of the largest errors, far enough from each other that their names do not meet."""
    apart = NAMES_APART * len(errors)
    chosen: list[int] = []
    for place in sorted(range(len(errors)), key=lambda each: -errors[each]):
        if len(chosen) < NAMED_IN_PLOT and all(abs(place - other) > apart for other in chosen):
            chosen.append(place)
    return chosen
