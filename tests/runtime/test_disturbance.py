"""A table says so when other work was running while it was measured."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bench.timing import Timing
from eightfold.runtime.devices.device_cpu import CoreSeconds, Cpu, read_core_seconds
from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.runtime.devices.devices import Device, DeviceState, read_state
from eightfold.runtime.report.report import render_report
from eightfold.runtime.report.report_content import ReportContent

STAT = """cpu  1000 0 0 9000 0 0 0 0 0 0
cpu0 500 10 40 4000 99 6 7 8 0 0
cpu1 300 0 0 5000 0 0 0 0 0 0
cpu2 200 0 0 5000 0 0 0 0 0 0
intr 12345
"""
# A program's name may hold blanks and brackets; utime and stime are the 12th and 13th value after it.
SELF = "42 (a) name) R 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 417720 3133440 414\n"


def tree(root: Path, **files: str) -> DeviceProbe:
    for name, text in {"stat": STAT, "self/stat": SELF, "uptime": "100.50 190.0\n", **files}.items():
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "proc/self/status").write_text("Cpus_allowed_list:\t0,2\n")
    return DeviceProbe(root=root)


def test_core_seconds_count_allowed_cores_without_idle_time(tmp_path: Path) -> None:
    seconds = read_core_seconds(tree(tmp_path))
    # core 0: 500 + 10 + 40 + 6 + 7 + 8 (not 4000 idle, not 99 waiting for disks); core 2: 200; core 1 is not ours
    assert seconds is not None
    assert (seconds.uptime_s, seconds.busy_s, seconds.own_s) == pytest.approx((100.5, 7.71, 2.0))


def test_core_seconds_that_cannot_be_read(tmp_path: Path) -> None:
    assert read_core_seconds(tree(tmp_path, **{"stat": "cpu  1 2 3\n"})) is None
    assert read_core_seconds(DeviceProbe(root=tmp_path / "nothing")) is None


def test_others_are_what_is_busy_without_this_process() -> None:
    before = CoreSeconds(uptime_s=10, busy_s=100, own_s=5)
    after = CoreSeconds(uptime_s=20, busy_s=118, own_s=8)
    assert after.others_since(before) == 1.5
    assert before.others_since(before) == 0.0


def test_this_process_s_work_is_its_own() -> None:
    before = read_state().core_seconds
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    after = read_state().core_seconds
    assert before is not None
    assert after is not None
    assert after.own_s - before.own_s >= 0.48  # user and system time are cut to hundredths
    assert after.busy_s - before.busy_s >= 0.4  # and here five times for each core; ticks of 10 ms tell busy from idle


def table(others_s: float) -> LatencyTable:
    states = [
        DeviceState(core_seconds=CoreSeconds(uptime_s=at, busy_s=2 * at + more, own_s=2 * at))
        for at, more in ((0.0, 0.0), (10.0, others_s))
    ]
    row = LatencyRow(
        name="baseline",
        backend="onnxruntime",
        backend_version="1",
        precision="fp32",
        batch=1,
        input_shapes={"x": (1,)},
        scope="model",
        warmup_runs=1,
        warmup_s=0.1,
        warmup_stable=True,
        rounds=10,
        timing=Timing.of(np.full(300, 1e-3)),
        before=states[0],
        after=states[1],
    )
    device = Device(cpu=Cpu(model="Test CPU", architecture="x86_64", cores=2), os="Test OS")
    return LatencyTable(device=device, versions={}, measured_at="2026", seconds_per_row=0.3, rows=(row,))


def test_a_quiet_machine_gets_no_warning() -> None:
    quiet = table(others_s=0.5)
    assert quiet.disturbance() == ""
    assert "*" not in quiet.describe()
    assert "not to be quoted" not in render_report(ReportContent(title="t", latency=quiet))


def test_a_little_other_work_is_marked_without_alarm() -> None:
    some = table(others_s=2.0)
    html = render_report(ReportContent(title="t", latency=some))
    assert "other work kept up to 0.2 of 2 cores busy" in html
    assert "not to be quoted" not in html


def test_a_busy_machine_is_named_in_table_and_report() -> None:
    busy = table(others_s=15.0)
    words = "other work kept up to 1.5 of 2 cores busy meanwhile; measure again on a quiet machine"
    assert busy.describe().splitlines()[-1] == f"*: {words}"
    html = render_report(ReportContent(title="t", latency=busy))
    assert f"<b>Times and speed-ups here are not to be quoted:</b> {words}." in html
