"""An engine under load: many threads, many requests, and memory that stays what it was."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.manifest import Task
from tests.cpp.native import NativeEngine

MakeBundle = Callable[..., Path]
THREADS = 8
REQUESTS = 1_000
GROWTH_LIMIT_BYTES = 5_000_000


@pytest.fixture
def engine(library: ctypes.CDLL, make_bundle: MakeBundle) -> NativeEngine:
    bundle = make_bundle(Preprocess(height=32, width=32), Task(kind="classify", decode="classify"), {"logits": (3,)})
    return NativeEngine(library, bundle, threads=1)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_eight_threads_get_the_answers_of_one(engine: NativeEngine) -> None:
    pictures = [np.full((20 + i, 30, 3), 20 * i, np.uint8) for i in range(THREADS)]
    expected = [engine.run([picture]).classes(0) for picture in pictures]

    def wrong_answers(index: int) -> int:
        return sum(engine.run([pictures[index]]).classes(0) != expected[index] for _ in range(REQUESTS))

    with ThreadPoolExecutor(THREADS) as threads:
        assert sum(threads.map(wrong_answers, range(THREADS))) == 0


def test_memory_stays_flat_over_twenty_thousand_requests(engine: NativeEngine) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for _ in range(1_000):
        engine.run([picture])
    gc.collect()
    before = resident_bytes()
    for _ in range(20_000):
        engine.run([picture])
    gc.collect()
    assert resident_bytes() - before < GROWTH_LIMIT_BYTES
