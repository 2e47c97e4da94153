"""`Predictor`: from images to answers, with the bundle's own preprocessing and decoding."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement, place
from eightfold.errors import BackendError, BundleError, ImageError, UsageError
from eightfold.files import PathLike
from eightfold.runtime.backends import backend_named, usable_backends
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.sizes import Size, size_of
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.predict.batching_queue import RequestQueue
from eightfold.runtime.predict.frames import read_for
from eightfold.runtime.predict.model_pools import ModelPools, check_open
from eightfold.runtime.predict.only_classes import only_classes
from eightfold.runtime.predict.packing import pack
from eightfold.runtime.predict.select_artifact import ArtifactRequest, SelectedArtifact, select_artifact

if TYPE_CHECKING:
    from eightfold.runtime.bench.latency import LatencyTable

Image = PathLike | NDArray[np.unsignedinteger[Any]]


class Predictor:
    """Runs a bundle.

    Safe to share between threads. Models are loaded when their batch size is first needed; buffers are allocated once
    and used again.

    Args:
        bundle: an opened bundle or its path; or a fixed-size .onnx file, whose task and preprocessing are guessed, see
            `bundle_of_onnx`.
        backend: "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino", "tensorrt", "tensorrt-rtx"; or
            "auto": the fastest in the bundle's own table of latencies if that was measured on this device, else by
            rule. `describe()` tells what was picked and why.
        precision: "fp32", "fp16", "int8" or "auto".
        batch: run only this batch size; by default all that the bundle has are used, with the least padding.
        size: of the images as the network takes them, one side or (height, width), where the bundle has several; by
            default that of its preprocessing.
        variant: "pruned", "baseline", ...; "auto" prefers what was compressed.
        threads: threads of a CPU backend for one request; its own default when None.
        device: number of the GPU.
        in_flight: requests that may run at once; more wait. Each holds buffers for one batch.
        queue: images that may wait after `submit`.
        key: the public key (a PEM file) that must have signed the bundle, where its path is given.
        classes: of a detector: report only objects with these labels, or class numbers as text; all when empty.

    Example:
        >>> with Predictor("model.eightfold") as predictor:  # doctest: +SKIP
        ...     print(predictor.predict("digit.png").label)
    """

    def __init__(
        self,
        bundle: Bundle | PathLike,
        backend: str = "auto",
        precision: str = "auto",
        batch: int | None = None,
        *,
        size: int | Size | None = None,
        variant: str = "auto",
        threads: int | None = None,
        device: int = 0,
        in_flight: int | None = None,
        queue: int = 64,
        key: PathLike | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        if isinstance(bundle, Bundle) and key is not None:
            raise UsageError(
                "a key for a bundle that is open", allowed="a key for its path", remedy="Bundle.open(key=)"
            )
        self.bundle = bundle if isinstance(bundle, Bundle) else _opened(bundle, key)
        wanted = None if size is None else size_of(size)
        self.choice = _choose(self.bundle, ArtifactRequest(backend, precision, batch, variant, wanted))
        self.preprocess = self.bundle.manifest.preprocess_of(self.choice.artifacts[0])
        self._decode = only_classes(decoder_of(self.bundle.manifest.task), self.bundle.manifest.task, classes)
        options = SessionOptions(threads=threads, device=device, keep_compiled=True)
        self._in_flight = in_flight or max(2, os.cpu_count() or 1)
        self._pools = ModelPools(self.bundle, self.choice, options, self._in_flight)
        self._lock = threading.Lock()
        self._closing = False
        self._queue_depth = queue
        self._requests: RequestQueue[Image, Any] | None = None

    def predict(self, image: Image | Sequence[Image]) -> Any:
        """Predict one image, or a list of images.

        Args:
            image: a path, or an RGB array (H, W, 3), grey (H, W) or RGBA (H, W, 4) of uint8, or what else the bundle's
                `Preprocess` takes (other channels, uint16); or a list of these.

        Returns:
            the task's result (`Classification`, ...), or a list of them in the order given.
        """
        if isinstance(image, Sequence) and not isinstance(image, str):
            return self.predict_batch(image)
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[Image]) -> list[Any]:
        """Predict a list of images, packed into the bundle's batch sizes."""
        results: list[Any] = []
        for start, count, batch in self._parts(len(images)):
            results += self._predict_part(images[start : start + count], batch)
        return results

    def submit(self, image: Image, *, timeout: float | None = None) -> Future[Any]:
        """Queue one image; images that wait together run as one batch.

        Args:
            image: as in `predict`.
            timeout: seconds to wait while the queue is full, None for as long as it takes.

        Returns:
            a future; `result()` gives the answer or raises the error of this very image. In asyncio:
            `await asyncio.wrap_future(predictor.submit(image))`.
        """
        return self._request_queue().put(image, timeout)

    def run(self, arrays: Array | Mapping[str, Array]) -> dict[str, Array]:
        """Run on tensors that are already preprocessed.

        Args:
            arrays: input name -> array shaped (N, ...) in the model's dtype; a lone array when there is one input.

        Returns:
            output name -> array (N, ...), which is the caller's own.
        """
        feeds = {self._input_name: arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
        count = _row_count(feeds)
        if count in self.choice.batches:
            return self._run_whole(feeds, count)
        parts = [self._run_part(_rows(feeds, start, rows), batch) for start, rows, batch in self._parts(count)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def warmup(self, runs: int = 3) -> None:
        """Load every batch size and run it a few times, so that the first request is as fast as the others."""
        for batch in self.choice.batches:
            with self._pools[batch].slot() as slot:
                for _ in range(runs):
                    slot.run()

    def close(self) -> None:
        """Answer what was submitted, then release the models. Using the predictor afterwards raises UsageError."""
        with self._lock:
            self._closing = True
        if self._requests is not None:
            self._requests.close()
        self._pools.close()

    def describe(self) -> str:
        """The selected artifact and back end, and the reason."""
        return self.choice.describe()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _request_queue(self) -> RequestQueue[Image, Any]:
        with self._lock:
            check_open(self._closing)
            if self._requests is None:
                self._requests = RequestQueue(
                    self.predict_batch,
                    depth=self._queue_depth,
                    largest=max(self.choice.batches),
                    workers=min(2, self._in_flight),
                )
            return self._requests

    def _check_takes_images(self) -> None:
        given, how = self.choice.artifacts[0].inputs, self.preprocess
        size = (how.height, how.width)
        image = (how.channels, *size) if how.layout == "nchw" else (*size, how.channels)
        if len(given) != 1 or (given[0].shape[1:], given[0].dtype) != (image, how.dtype):
            taken = ", ".join(f"{spec.dtype} {spec.shape[1:]}" for spec in given)
            raise BundleError(
                f"the network takes {taken}, and the bundle's preprocessing gives {how.dtype} {image}",
                allowed="one input of that shape",
                remedy="use run() with tensors, or make the bundle again",
            )

    @property
    def _input_name(self) -> str:
        return self.choice.artifacts[0].inputs[0].name

    def _parts(self, count: int) -> Iterator[tuple[int, int, int]]:
        """(first row, number of rows, batch size) of each call."""
        if count == 0:
            raise UsageError("no images", allowed="one or more")
        start = 0
        for batch in pack(count, self.choice.batches):
            rows = min(batch, count - start)
            yield start, rows, batch
            start += rows

    def _predict_part(self, images: Sequence[Image], batch: int) -> Sequence[Any]:
        self._check_takes_images()
        with self._pools[batch].slot() as slot:
            rows = slot.inputs[self._input_name]
            placements = [self._load(image, rows[index]) for index, image in enumerate(images)]
            rows[len(images) :] = 0
            slot.run()
            return self._decode(slot.outputs, placements)

    def _load(self, image: Image, row: Array) -> Placement:
        pixels = image if isinstance(image, np.ndarray) else read_for(self.preprocess, _path(image))
        self.preprocess(pixels, row)
        return place(self.preprocess, *pixels.shape[:2])

    def _run_part(self, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
        count = len(next(iter(feeds.values())))
        padded = feeds if count == batch else {name: _padded(array, batch) for name, array in feeds.items()}
        return {name: array[:count] for name, array in self._run_whole(padded, batch).items()}

    def _run_whole(self, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
        # Its code lies in no cache after a model has run, so each call and each object it touches costs several times
        # what it costs in a loop.
        pool = self._pools[batch]
        pool.session.check(feeds)
        slot = pool.take()
        try:
            slot.run_on(feeds)
            return {name: array.copy() for name, array in slot.outputs.items()}
        finally:
            pool.give(slot)


def _opened(path: PathLike, key: PathLike | None) -> Bundle:
    if Path(path).suffix != ".onnx":
        return Bundle.open(path, key=key)
    if key is not None:
        raise UsageError(f"a key for {path}", allowed="bundles, which can be signed", remedy="leave it out")
    from eightfold.runtime.predict.onnx_bundle import bundle_of_onnx

    return bundle_of_onnx(path)


def _choose(bundle: Bundle, request: ArtifactRequest) -> SelectedArtifact:
    usable = usable_backends() if request.backend == "auto" else [backend_named(request.backend).name]
    manifest = bundle.manifest
    return select_artifact(manifest.artifacts, manifest.preprocess, usable, request, _table_for_here(bundle))


def _table_for_here(bundle: Bundle) -> LatencyTable | None:
    """The bundle's latency table, if it was measured on a machine like this one."""
    path = bundle.document("latency")
    if path is None:
        return None
    from eightfold.runtime.bench.latency import LatencyTable
    from eightfold.runtime.devices.devices import describe_device  # here, so that bundles without a table start quickly

    table = LatencyTable.load(path)
    return table if table.is_of(describe_device()) else None


def _row_count(feeds: Mapping[str, Array]) -> int:
    for name, array in feeds.items():
        if not isinstance(array, np.ndarray):
            raise BackendError(f"input {name!r} is a {type(array).__name__}", allowed="a numpy array")
    counts = {len(array) for array in feeds.values() if array.ndim}
    if len(counts) != 1:
        raise BackendError(f"inputs hold {sorted(counts) or 'no'} rows", allowed="the same number in each")
    return counts.pop()


def _path(image: Any) -> PathLike:
    if isinstance(image, (str, Path)):
        return image
    raise ImageError(
        f"an image of type {type(image).__name__}",
        allowed="a path, an array (H, W, 3) of uint8, or a list of these",
        remedy="numpy.asarray turns most other images into arrays",
    )


def _rows(feeds: Mapping[str, Array], start: int, count: int) -> Mapping[str, Array]:
    return {name: array[start : start + count] for name, array in feeds.items()}


def _padded(array: Array, batch: int) -> Array:
    padding = np.zeros((batch - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, padding])
