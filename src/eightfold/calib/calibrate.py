"""`calibrate`: stream images through the FP32 graph and remember, per activation, a state of fixed size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.checkpoint import kept_in
from eightfold.calib.functions_behind import Readers
from eightfold.calib.images.data_reader import DataReader, batched, open_data, peeked
from eightfold.calib.images.image_set import ImageSet, ImageWarning
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.observers import METHODS, Checking, Histogrammed, Observer, Seeing, make_observer
from eightfold.calib.range_losses import FAR_DB, loss_of, with_sample
from eightfold.calib.ranges import Method, Ranges
from eightfold.calib.session import open_runner
from eightfold.defaults import CALIBRATION_BATCH, CALIBRATION_METHOD, PERCENTILE
from eightfold.errors import CalibrationError, UsageError, one_of
from eightfold.files import PathLike, sha256_of_bytes
from eightfold.onnx_graph.graph import ModelGraph, read_graph
from eightfold.threads import most_threads
from eightfold.versions import identity_of

FEW_IMAGES = 32
Tensor = Array
# Packages whose version may change what is seen of an activation.
DECIDING = ("eightfold", "onnxruntime", "numpy", "cv2")


@dataclass(frozen=True)
class CalibrationOptions:
    """Options that choose ranges. `percentile` is the share of values to cover, in percent, for that method."""

    method: Method = CALIBRATION_METHOD
    percentile: float = PERCENTILE
    batch: int = CALIBRATION_BATCH
    threads: int = 0

    def __post_init__(self) -> None:
        one_of("method", self.method, list(METHODS))
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile is {self.percentile}", allowed="more than 50, at most 100")
        if self.batch < 1:
            raise UsageError(f"batch is {self.batch}", allowed="at least 1")
        if not 0 <= self.threads <= most_threads():
            allowed = f"1 to {most_threads()} on this machine, or 0 for one per core"
            raise UsageError(f"threads is {self.threads}", allowed=allowed)


def calibrate(
    onnx_path: PathLike,
    images: ImageSource,
    preprocess: Preprocess | None,
    *,
    method: Method = CALIBRATION_METHOD,
    batch: int = CALIBRATION_BATCH,
    percentile: float = PERCENTILE,
    threads: int = 0,
    checkpoint: PathLike | None = None,
) -> Ranges:
    """The ranges of every activation of a network, from images. Memory does not grow with their number.

    Args:
        onnx_path: an FP32 graph with fixed sizes, of any batch size.
        images: a folder, list file, glob pattern, list of paths, `ImageSet`, array or iterator of (H, W, C) uint8
            images; with `preprocess=None` an array or iterator of tensors that are ready for the model, (C, H, W) or
            whole batches.
        preprocess: how an image becomes a row of the model's input.
        method: "minmax", "moving-average", "percentile", "entropy" or "mse"; see `thresholds.range_of`. The input
            itself always gets all that was seen.
        batch: images to run at a time; fewer where activations are large.
        percentile: share of the values to cover, in percent, for "percentile".
        threads: for the network and for the observers; 0 for one per core.
        checkpoint: a file that keeps what was seen when the work is interrupted; the same call goes on from it, and
            removes it when done. Needs images that can be opened again: not an iterator.

    Returns:
        The ranges, the same for the same images in the same order, whatever `batch` and `threads` are (rounding of
        the network's own arithmetic aside).

    Warns:
        ImageWarning: fewer than 32 images, or what `open_images` finds in them.

    Raises:
        CalibrationError: the graph cannot be calibrated, or an activation is NaN or infinite.
        ImageError: no images, or more than 5% of them cannot be read.
    """
    options = CalibrationOptions(method, percentile, batch, threads)
    graph = read_graph(onnx_path)
    rows = open_data(images, preprocess, graph.input_shape[1:], graph.input_dtype)
    observers = _observers(graph, options)
    if graph.input.name in observers:
        # Pixels are bounded by themselves. A constant background would make entropy cut off what is on it.
        observers[graph.input.name] = make_observer("minmax")
    with kept_in(checkpoint, _identity(graph, rows, preprocess, options), rows, observers) as keep:
        if rows.left != 0 or not rows.tally.used:
            observe(graph, rows, observers, options, after_batch=keep)
    return _ranges(graph, rows, preprocess, observers, options)


def _observers(graph: ModelGraph, options: CalibrationOptions) -> dict[str, Observer]:
    new = partial(make_observer, options.method, percentile=options.percentile)
    found = {name: with_sample(new()) for name in graph.observed}
    readers = Readers(graph)
    for name, observer in found.items():
        if isinstance(observer, Histogrammed) and observer.method == "mse":
            observer.function = readers.function(name)
            if observer.function is None and readers.end_in_output(name):
                # Decoders look for what is rare: the few large scores, which have no share in a mean error.
                found[name] = make_observer("minmax")
    return found


def _identity(graph: ModelGraph, rows: DataReader, preprocess: Preprocess | None, options: CalibrationOptions) -> str:
    """The facts that two calibrations must share for one to resume the other."""
    images = rows.images.digest() if isinstance(rows.images, ImageSet) else ""
    rules = preprocess.digest() if preprocess else ""
    parts = (graph.digest(), images, rules, options.method, str(options.percentile), identity_of(DECIDING))
    return sha256_of_bytes(" ".join(parts).encode())


def observe(
    graph: ModelGraph,
    rows: DataReader,
    observers: Mapping[str, Seeing],
    options: CalibrationOptions,
    *,
    optimize: bool = True,
    what: str = "calibrating",
    after_batch: Callable[[], None] = lambda: None,
) -> None:
    """Run all rows through the graph; every observer sees the activation that it is filed under.

    `optimize=False` keeps onnxruntime from rewriting a quantized graph; `what` is the work that progress speaks of.

    Raises:
        CalibrationError: an activation is NaN or infinite.
    """
    threads = options.threads or os.cpu_count() or 1
    first, stream = peeked(rows, what)
    runner = open_runner(
        graph, tuple(observers), first, batch=options.batch, threads=threads, optimize=optimize, reuse=True
    )
    with ThreadPoolExecutor(threads) as pool:
        for named in batched(stream, runner.rows):
            for part in runner([row for _, row in named]):
                found = pool.map(partial(_see_all, observers), _shares(part, threads))
                faults = {fault for each in found for fault in each}
                for fault in part if faults else ():  # the first in the graph's order is the cause
                    if fault in faults:
                        raise _not_finite(graph, fault, part[fault], [name for name, _ in named])
                del part  # before the next run makes as much again
            after_batch()


def _shares(part: Mapping[str, Tensor], threads: int) -> list[list[tuple[str, Tensor]]]:
    """Tensors for each thread, about as many values for each: a task for every small tensor would cost more than it."""
    shares: list[list[tuple[str, Tensor]]] = [[] for _ in range(threads)]
    sizes = [0] * threads
    for name, values in sorted(part.items(), key=lambda item: -item[1].size):
        least = sizes.index(min(sizes))
        shares[least].append((name, values))
        sizes[least] += values.size
    return shares


def _see_all(observers: Mapping[str, Seeing], share: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Show tensors to their observers; returns the names of those that are not finite."""
    return [fault for item in share if (fault := _see(observers, item)) is not None]


def _see(observers: Mapping[str, Seeing], item: tuple[str, Tensor]) -> str | None:
    """Show a tensor to its observer; returns its name if it is not finite."""
    name, values = item
    if not values.size:  # shapes are fixed, so that it is empty for every image: zero says what there is to say
        values = np.zeros([max(1, side) for side in values.shape], values.dtype)
    observer = observers[name]
    if hasattr(observer, "see_checked"):
        # It looks at the extremes anyway, which tell.
        return None if cast("Checking", observer).see_checked(values) else name
    if not _is_finite(values):
        return name
    observer.see(values)
    return None


def _is_finite(values: Tensor) -> bool:
    """True if there is neither NaN nor infinity. The sum of squares tells in a quarter of the time, if it does not
    overflow."""
    flat = values.reshape(-1)
    return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _not_finite(graph: ModelGraph, tensor: str, values: Tensor, images: list[str]) -> CalibrationError:
    row = int(np.argwhere(~np.isfinite(values))[0][0]) if values.ndim else 0
    node = graph.producer.get(tensor)
    maker = f"node {node.name or tensor!r} ({node.op_type})" if node is not None else "the input"
    return CalibrationError(
        f"{maker} gives NaN or infinite values in {tensor!r} for {images[min(row, len(images) - 1)]}",
        allowed="finite activations",
        remedy="check the model on that image",
    )


def _ranges(
    graph: ModelGraph,
    rows: DataReader,
    preprocess: Preprocess | None,
    observers: dict[str, Observer],
    options: CalibrationOptions,
) -> Ranges:
    if 0 < rows.tally.used < FEW_IMAGES:
        allowed = f"{FEW_IMAGES} or more, which show what activations reach"
        warnings.warn(ImageWarning(f"calibrated with {rows.tally.used} images; allowed: {allowed}"), stacklevel=3)
    with ThreadPoolExecutor(options.threads or os.cpu_count() or 1) as pool:
        found = dict(zip(observers, pool.map(lambda observer: observer.range(), observers.values()), strict=True))
        losses = dict(zip(observers, pool.map(loss_of, observers.values()), strict=True))
    return Ranges(
        method=options.method,
        images=rows.tally.used,
        image_set=rows.tally.digest(),
        graph=graph.digest(),
        preprocess=preprocess.digest() if preprocess else "",
        tensors={name: found[first] for name, first in graph.alias.items() if first in found},
        losses={name: round(loss, 1) for name, loss in losses.items() if loss >= FAR_DB},
    )
