"""Modes of a measurement by name."""

from __future__ import annotations

import functools
import threading
import time
from pathlib import Path

import pytest

from eightfold.errors import UnknownNameError
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.modes import MODES, Mode, measure, pipelined

QUICK = Schedule(seconds=0.04, rounds=4, block_s=0.01, warmup_s=0.02)


@pytest.mark.parametrize("count", [1, 4])
def test_requests_are_in_flight_side_by_side(count: int) -> None:
    active, most, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        time.sleep(0.004)
        with lock:
            active -= 1

    found = pipelined({"x": [call] * count}, QUICK)
    assert most > 1 if count > 1 else most == 1
    assert found["x"].times_s.shape == (len(found["x"].times_s), 1)


def test_a_request_that_fails_is_not_swallowed() -> None:
    def fail() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        pipelined({"x": [fail, fail]}, QUICK)


def test_mlperf_modes_give_each_candidate_its_time_in_one_go() -> None:
    log: list[str] = []
    calls = {name: [functools.partial(log.append, name)] for name in "ab"}
    measure("single-stream", calls, QUICK)
    assert log == sorted(log)
    log.clear()
    measure("latency", calls, QUICK)
    assert log != sorted(log)


@pytest.mark.parametrize(
    ("mode", "label"),
    [("throughput", "throughput: a request in flight on each core"), ("offline", "offline (shortened: 0.04 of 600 s)")],
)
def test_a_row_says_its_mode(mode: Mode, label: str, bundle_path: Path) -> None:
    both = [Candidate(name, bundle_path / "onnx/pruned-b4.onnx", 4) for name in ("one", "two")]
    table = compare_latency(both, options=BenchOptions(QUICK, SessionOptions(), memory=False, mode=mode))
    row = table.row("two", 4)
    assert row.mode == mode
    assert row.threads == 1
    assert row.images_per_s == pytest.approx(4 / (row.timing.mean_ms / 1e3))
    assert (row.speedup is None) is MODES[mode].alone
    assert label in table.describe()


def test_a_full_run_is_not_called_shortened() -> None:
    assert "shortened" not in MODES["offline"].note("offline", 600)
    assert "shortened" not in MODES["throughput"].note("throughput", 1)


def test_an_unknown_mode() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown mode 'server'; allowed: .*single-stream"):
        BenchOptions(mode="server")  # type: ignore[arg-type]  # as the command line gives it
