"""The adapters against stand-ins for TensorRT's base classes and for device memory: neither is here without a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.data_reader import open_data
from eightfold.calib.trt_cache import thresholds_from_cache
from eightfold.errors import BackendError, UnknownNameError
from eightfold.export.tensorrt.calibrator import BASES, calibrator_from_ranges, calibrator_from_rows

ModelMaker = Callable[..., Path]


class Memory:
    """A device whose buffers are arrays."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.waiting: list[tuple[int, Any]] = []  # a copy may be under way until the stream is synchronized

    def active(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def allocate(self, nbytes: int) -> Any:
        self.held[7] = None
        return SimpleNamespace(address=7, nbytes=nbytes)

    def pinned(self, shape: Any, dtype: str) -> Any:
        return np.zeros(shape, dtype)

    def stream(self) -> Any:
        def upload(buffer: Any, array: Any) -> None:
            self.waiting.append((buffer.address, array))

        def synchronize() -> None:
            self.held |= {address: array.copy() for address, array in self.waiting}
            self.waiting.clear()

        return SimpleNamespace(upload=upload, synchronize=synchronize)


def tensorrt(version: str = "10.3.0") -> Any:
    bases = {name: type(name, (), {}) for name in BASES.values()}
    return SimpleNamespace(__version__=version, **bases)


@pytest.mark.parametrize("algorithm", sorted(BASES))
def test_batches_come_from_the_images(rows: Any, tmp_path: Path, algorithm: Any) -> None:
    trt, memory = tensorrt(), Memory()
    stream = open_data(rows, None, (3, 12, 12))
    cache = tmp_path / "calibration.cache"
    fake: Any = memory
    calibrator = calibrator_from_rows(trt, stream, fake, batch=16, cache=cache, algorithm=algorithm)
    assert isinstance(calibrator, getattr(trt, BASES[algorithm]))
    assert calibrator.get_batch_size() == 16
    assert calibrator.read_calibration_cache() is None
    for first in (0, 16):
        assert calibrator.get_batch(["image"]) == [7]
        np.testing.assert_array_equal(memory.held[7], rows[first : first + 16])
    assert calibrator.get_batch(["image"]) is None  # eight rows are left, not a batch
    calibrator.write_calibration_cache(memoryview(b"TRT-8601-EntropyCalibration2\n"))
    assert calibrator.read_calibration_cache() == b"TRT-8601-EntropyCalibration2\n"


def test_known_ranges_need_no_image(residual_net: ModelMaker, rows: Any) -> None:
    ranges = calibrate(residual_net(), rows, None)
    calibrator = calibrator_from_ranges(tensorrt("8.6.1"), ranges, algorithm="minmax")
    assert calibrator.get_batch(["image"]) is None
    text = calibrator.read_calibration_cache().decode()
    assert text.startswith("TRT-8601-MinMaxCalibration\n")
    found = thresholds_from_cache(text)[1]
    assert found == {name: pytest.approx(entry.threshold, rel=1e-6) for name, entry in ranges.tensors.items()}


def test_tensorrt_without_calibrators(residual_net: ModelMaker, rows: Any) -> None:
    ranges = calibrate(residual_net(), rows, None)
    eleven: Any = SimpleNamespace(__version__="10.99.0")
    with pytest.raises(BackendError, match="has no calibrators; allowed: TensorRT 8 and 10"):
        calibrator_from_ranges(eleven, ranges)
    wrong: Any = "kl"
    with pytest.raises((UnknownNameError, KeyError)):
        calibrator_from_ranges(tensorrt(), ranges, algorithm=wrong)
