"""Calibrators for TensorRT 8 and 10, which pull batches of images or are handed ranges that are known already.

The classes are made when they are asked for: their bases live in the `tensorrt` module.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from eightfold.calib.images.data_reader import DataReader, batched
from eightfold.calib.ranges import Ranges
from eightfold.calib.trt_cache import Algorithm, cache_from_ranges
from eightfold.errors import BackendError, UnknownNameError
from eightfold.files import PathLike, write_bytes
from eightfold.runtime.backends.cuda.base import Cuda, DeviceBuffer

BASES: dict[Algorithm, str] = {
    "entropy": "IInt8EntropyCalibrator",
    "entropy2": "IInt8EntropyCalibrator2",
    "minmax": "IInt8MinMaxCalibrator",
    "legacy": "IInt8LegacyCalibrator",
}


def calibrator_from_ranges(trt: ModuleType, ranges: Ranges, *, algorithm: Algorithm = "entropy2") -> Any:
    """A calibrator that serves ranges from a cache in memory: TensorRT runs no image at all.

    Args:
        trt: the `tensorrt` module, 8 or 10.
        ranges: of the network that is built.
        algorithm: whose calibrator to be.
    """
    text = cache_from_ranges(ranges, version=trt.__version__, algorithm=algorithm)
    return calibrator_from_cache(trt, text.encode(), algorithm=algorithm)


def calibrator_from_cache(trt: ModuleType, cache: bytes, *, algorithm: Algorithm = "entropy2") -> Any:
    """A calibrator that serves a calibration cache as it is."""
    return _calibrator_class(trt, algorithm)(_Served(cache))


def calibrator_from_rows(
    trt: ModuleType,
    rows: DataReader,
    cuda: Cuda,
    *,
    batch: int = 8,
    cache: PathLike | None = None,
    algorithm: Algorithm = "entropy2",
) -> Any:
    """A calibrator that feeds TensorRT model-ready rows, so that it finds the ranges itself.

    Args:
        trt: the `tensorrt` module, 8 or 10.
        rows: the images; see `calib.rows.rows_of`. A last batch that is not full is left out.
        cuda: whose memory the batches lie in; see `runtime.cuda_memory.open_cuda`.
        batch: rows per batch: the batch size of the network.
        cache: file to read ranges from where it exists, and to write what TensorRT found to.
        algorithm: which of TensorRT's calibrators.
    """
    source = _Fed(rows, cuda, batch, None if cache is None else Path(cache))
    return _calibrator_class(trt, algorithm)(source)


class _Served:
    """Ranges that are known: no batches."""

    batch = 1

    def __init__(self, cache: bytes) -> None:
        self.cache = cache

    def next_address(self) -> int | None:
        return None

    def read(self) -> bytes | None:
        return self.cache

    def write(self, data: bytes) -> None:
        """TensorRT returns the content that it was given."""


class _Fed:
    """Batches of images, in device memory."""

    def __init__(self, rows: DataReader, cuda: Cuda, batch: int, cache: Path | None) -> None:
        self.batch, self.cache, self.cuda = batch, cache, cuda
        with cuda.active():
            self.stream = cuda.stream()
        self.batches: Iterator[list[tuple[str, Any]]] = batched(rows, batch)
        self.buffer: DeviceBuffer | None = None
        self.pinned: Any = None

    def next_address(self) -> int | None:
        named = next(self.batches, [])
        if len(named) < self.batch:
            return None
        array = np.stack([row for _, row in named]).astype(np.float32)
        with self.cuda.active():
            if self.buffer is None:
                self.buffer, self.pinned = self.cuda.allocate(array.nbytes), self.cuda.pinned(array.shape, "float32")
            np.copyto(self.pinned, array)
            self.stream.upload(self.buffer, self.pinned)
            self.stream.synchronize()
        return self.buffer.address

    def read(self) -> bytes | None:
        return self.cache.read_bytes() if self.cache is not None and self.cache.is_file() else None

    def write(self, data: bytes) -> None:
        if self.cache is not None:
            write_bytes(self.cache, data)


def _calibrator_class(trt: ModuleType, algorithm: Algorithm) -> Any:
    if algorithm not in BASES:
        raise UnknownNameError.of("calibrator", algorithm, BASES)
    base = getattr(trt, BASES[algorithm], None)
    if base is None:
        raise BackendError(
            f"TensorRT {trt.__version__} has no calibrators",
            allowed="TensorRT 8 and 10",
            remedy="quantize the graph for its target, and build that",
        )

    class Calibrator(base):  # type: ignore[misc,valid-type]  # known at run time only
        """Names and signatures are TensorRT's."""

        def __init__(self, source: _Served | _Fed) -> None:
            # TensorRT wants its base initialized by name; super() is not enough for its bindings.
            base.__init__(self)  # type: ignore[misc]  # known at run time only
            self.source = source

        def get_batch_size(self) -> int:
            return self.source.batch

        def get_batch(self, names: list[str], *_: Any) -> list[int] | None:
            address = self.source.next_address()
            return None if address is None else [address]

        def read_calibration_cache(self, *_: Any) -> bytes | None:
            return self.source.read()

        def write_calibration_cache(self, cache: bytes, *_: Any) -> None:
            self.source.write(bytes(cache))

        # The legacy calibrator asks for these as well: cut one value in ten thousand, and weigh that as it is.
        def get_quantile(self) -> float:
            return 0.9999

        def get_regression_cutoff(self) -> float:
            return 1.0

        def read_histogram_cache(self, *_: Any) -> None:
            return None

        def write_histogram_cache(self, *_: Any) -> None:
            return None

    return Calibrator
