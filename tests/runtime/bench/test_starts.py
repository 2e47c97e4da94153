"""Several starts of one measurement, in processes of their own, with pinned threads."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.errors import BackendError
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bench import starts as module
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.clocks import ClockWatch
from eightfold.runtime.bench.interleave import Samples, Schedule, WarmUp
from eightfold.runtime.bench.placement import pin_thread, restored_affinity, select_cores
from eightfold.runtime.bench.start import OpenedCandidate, Start, StartOptions
from eightfold.runtime.bench.starts import clocks_moved, measure_starts, start_in_process
from eightfold.runtime.bench.sweep import thread_counts
from eightfold.runtime.devices.device_cpu import CoreSeconds
from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.runtime.devices.devices import DeviceState

OPENED = OpenedCandidate(
    backend="b", version="1", provider="", threads=1, cores=(0,), pinned=True, input_shapes={}, scope="model"
)
SHORT = Schedule(seconds=0.04, rounds=4, block_s=0.005, warmup_s=0.02, starts=2)


def candidate(bundle: Path, name: str = "one", **changes: Any) -> Candidate:
    return Candidate(name, bundle / "onnx/pruned-b1.onnx", 1, **changes)


def start(others: float = 0.0, slowdowns: int = 0, clocks: tuple[float, ...] = (), ms: float = 1.0) -> Start:
    samples = Samples(np.full((3, 2), ms / 1e3), WarmUp(1, 0.1, True, 1e-3), np.zeros((3, 2), bool))
    states = [
        DeviceState(slowdowns=count, core_seconds=CoreSeconds(uptime_s=at, busy_s=at * others, own_s=0))
        for at, count in ((0, 0), (10, slowdowns))
    ]
    return Start({"one": samples}, {"one": OPENED}, states[0], states[1], clocks)


def test_starts_are_processes_with_pinned_threads(bundle_path: Path) -> None:
    before = os.sched_getaffinity(0)
    both = [candidate(bundle_path), candidate(bundle_path, "two")]
    table = compare_latency(both, options=BenchOptions(SHORT, SessionOptions(threads=1), memory=False))
    row = table.row("two", 1)
    assert len(row.start_p50_ms) == 2
    assert row.speedup is not None
    assert row.speedup.starts == 2
    assert (row.threads, len(row.cores), row.pinned) == (1, 1, True)
    assert row.input_shapes == {"images": (1, 3, 8, 8)}
    assert f"threads: 1 pinned to core {row.cores[0]}; timed: model; 2 starts" in table.describe()
    assert os.sched_getaffinity(0) == before


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"x")
    with pytest.raises(BackendError, match=r"onnxruntime cannot load .*broken\.onnx"):
        start_in_process([Candidate("x", tmp_path / "broken.onnx", 1)], StartOptions(SHORT))


def test_a_start_that_is_killed_says_so(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = subprocess.CompletedProcess(["python"], -9, "", "")
    monkeypatch.setattr("eightfold.runtime.bench.starts.subprocess.run", lambda *_, **__: killed)
    with pytest.raises(BackendError, match="a start of the measurement ended with code -9"):
        start_in_process([candidate(bundle_path)], StartOptions(SHORT))


def test_a_backend_of_this_program_alone_is_measured_in_it(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = subprocess.CompletedProcess(["python"], 3, "", "")
    monkeypatch.setattr("eightfold.runtime.bench.starts.subprocess.run", lambda *_, **__: unknown)
    found = start_in_process([candidate(bundle_path)], StartOptions(SHORT.of_start(0)))
    assert found.samples["one"].times_s.size > 0


@pytest.mark.parametrize(
    ("disturbed", "made", "kept"),
    [
        ([0, 0, 0, 0], 4, [0, 1, 2, 3]),
        ([0, 1, 0, 0, 0], 5, [0, 2, 3, 4]),
        ([0, 1, 1, 1, 0, 0, 0], 6, [0, 1, 4, 5]),  # the budget ends: one that was disturbed stays
    ],
)
def test_disturbed_starts_are_made_again_up_to_a_budget(
    disturbed: list[int], made: int, kept: list[int], bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Iterator[int] = iter(range(len(disturbed)))
    done: list[int] = []

    def one(*_: object) -> Start:
        done.append(next(calls))
        return start(others=disturbed[done[-1]], ms=1.0 + done[-1])

    monkeypatch.setattr(module, "start_in_process", one)
    found = measure_starts([candidate(bundle_path)], StartOptions(Schedule(seconds=1.0, starts=4)))
    assert len(done) == made
    assert [round(each.samples["one"].times_s[0, 0] * 1e3) - 1 for each in found] == kept


def test_throttling_and_moving_clocks_disturb() -> None:
    assert module.quiet_count([start(), start(slowdowns=1), start(clocks=(2000.0, 2000.0, 2400.0))]) == 1
    assert not clocks_moved(start(clocks=(2000.0, 2050.0)))


def core(root: Path, number: int, siblings: str, capacity: int | None = None) -> None:
    folder = root / f"sys/devices/system/cpu/cpu{number}"
    (folder / "topology").mkdir(parents=True)
    (folder / "topology/thread_siblings_list").write_text(siblings + "\n")
    if capacity is not None:
        (folder / "cpu_capacity").write_text(f"{capacity}\n")


def test_one_hyper_thread_of_each_core_and_the_fastest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (siblings, capacity) in enumerate((("0,2", 400), ("1,3", 1024), ("0,2", 400), ("1,3", 1024))):
        core(tmp_path, number, siblings, capacity)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert select_cores(DeviceProbe(root=tmp_path)) == (1, 0)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2, 3})
    assert select_cores(DeviceProbe(root=tmp_path)) == (3, 2)


def test_a_container_with_a_quota_gets_no_more_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 7, 9})
    assert select_cores(DeviceProbe(root=tmp_path)) == (4,)


def test_quiet_cores_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core 0 is busy all the time between two looks, core 1 is idle."""
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    stat.write_text("cpu0 100 0 0 0\ncpu1 100 0 0 0\n")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("time.sleep", lambda _: stat.write_text("cpu0 1000 0 0 0\ncpu1 100 0 0 0\n"))
    assert select_cores(DeviceProbe(root=tmp_path), watch_s=0.1) == (1, 0)


def test_a_pinned_thread_gets_its_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with restored_affinity():
        pin_thread([min(before)])
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_a_clock_is_read_after_the_warm_up(tmp_path: Path) -> None:
    path = tmp_path / "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq"
    path.parent.mkdir(parents=True)
    watch = ClockWatch((3, 4), DeviceProbe(root=tmp_path), skip=1)
    for khz in ("800000", "2400000"):
        path.write_text(khz)
        watch.read()
    assert watch.seen_mhz == (2400.0,)
    nothing = ClockWatch((5,), DeviceProbe(root=tmp_path))
    nothing.read()
    assert nothing.seen_mhz == ()


def test_a_sweep_finds_the_fastest_number_of_threads(bundle_path: Path) -> None:
    options = BenchOptions(Schedule(seconds=0.04, rounds=4), memory=False, sweep=True)
    table = compare_latency([candidate(bundle_path)], options=options)
    (row,) = table.rows
    assert row.threads_tried_ms.keys() == {str(count) for count in thread_counts(len(select_cores()))}
    assert str(row.threads) in row.threads_tried_ms
    assert f"one, batch 1 is fastest with threads: {row.threads} (ms by threads: 1: " in table.describe()


@pytest.mark.parametrize(("cores", "counts"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_thread_counts(cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(cores) == counts
