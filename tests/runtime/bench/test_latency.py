from __future__ import annotations

from typing import Any

import pytest

from eightfold.errors import BackendError
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bench.timing import Interval, Timing
from eightfold.runtime.devices.device_cpu import Cpu
from eightfold.runtime.devices.device_gpu import Gpu
from eightfold.runtime.devices.devices import Device, DeviceState

DEVICE = Device(cpu=Cpu(model="Cortex-A78AE", architecture="aarch64", cores=6), os="Ubuntu 22.04")


def timing(**changes: Any) -> Timing:
    values = {
        "runs": 1000,
        "duration_s": 2.0,
        "mean_ms": 2.0,
        "min_ms": 1.0,
        "max_ms": 9.0,
        "p50_ms": 1.9,
        "p90_ms": 2.5,
        "p95_ms": 3.0,
        "p99_ms": 5.0,
        "p999_ms": None,
        "variation": 0.1,
    }
    return Timing.model_validate(values | changes)


def row(**changes: Any) -> LatencyRow:
    values: dict[str, Any] = {
        "name": "pruned int8",
        "backend": "onnxruntime",
        "backend_version": "1.2.3",
        "precision": "int8",
        "batch": 4,
        "input_shapes": {"images": (4, 3, 8, 8)},
        "scope": "model",
        "warmup_runs": 10,
        "warmup_s": 0.5,
        "warmup_stable": True,
        "rounds": 20,
        "timing": timing(),
        "before": DeviceState(),
        "after": DeviceState(),
    }
    return LatencyRow(**(values | changes))


def table(*rows: LatencyRow, device: Device = DEVICE) -> LatencyTable:
    return LatencyTable(
        device=device, versions={}, measured_at="2026-01-01T00:00:00+00:00", seconds_per_row=1, rows=rows
    )


def test_the_printed_table() -> None:
    faster = row(speedup=Interval(value=3.5, low=3.4, high=3.6), peak_memory_bytes=64 << 20, threads=2)
    assert table(faster).describe().splitlines() == [
        "Cortex-A78AE, 6 cores",
        "onnxruntime 1.2.3; threads: 2; timed: model",
        "batch  candidate    p50 ms  p90 ms  p99 ms  images/s      speed-up [95%]  memory",
        "    4  pruned int8   1.900   2.500   5.000      2000  3.50x [3.40, 3.60]  64 MiB",
    ]


def test_a_table_that_is_wider_than_the_terminal_has_names_as_headings() -> None:
    names = ("baseline-fp32-640x480 openvino", "pruned-int8-cpu-x86-640x480 onnxruntime")
    wide = table(
        *(
            row(name=name, batch=batch, speedup=Interval(value=3.5, low=3.4, high=3.6))
            for batch in (1, 8)
            for name in names
        ),
        row(batch=1, timing=timing(p99_ms=None), notes=("a note of more than eighty characters, " * 3,)),
    )
    assert max(map(len, wide.describe().splitlines())) > 100
    lines = wide.describe(width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2:9] == [
        "batch  p50 ms  p90 ms  p99 ms  images/s      speed-up [95%]  memory",
        names[0],
        "    1   1.900   2.500   5.000       500  3.50x [3.40, 3.60]       -",
        "    8   1.900   2.500   5.000      4000  3.50x [3.40, 3.60]       -",
        names[1],
        "    1   1.900   2.500   5.000       500  3.50x [3.40, 3.60]       -",
        "    8   1.900   2.500   5.000      4000  3.50x [3.40, 3.60]       -",
    ]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"timing": timing(p99_ms=None)}, "-: too few runs for this percentile"),
        ({"warmup_stable": False}, "~: not settled after the warm-up"),
        ({"before": DeviceState(slowdowns=3), "after": DeviceState(slowdowns=4)}, "!: the hardware slowed itself down"),
        ({"clocks_moved": True}, "^: the clock moved by more than 5%"),
        ({"timing": timing(p90_ms=19.1)}, "|: stalls: one call in ten took more than 5 times the median"),
        ({"most_others_cores": 1.5}, "*: other work kept up to 1.5 of 6 cores busy meanwhile"),
        ({"notes": ("something else",)}, "something else"),
    ],
)
def test_what_makes_a_row_doubtful_is_said(changes: dict[str, Any], note: str) -> None:
    assert any(line.startswith(note) for line in table(row(**changes)).describe().splitlines())
    assert not any(line.startswith(note) for line in table(row()).describe().splitlines())


def test_throughput_counts_images_not_calls() -> None:
    assert row(batch=4).images_per_s == 2000


def test_a_row_by_name_and_batch() -> None:
    full = table(row(), row(batch=1))
    assert full.row("pruned int8", 1).batch == 1
    with pytest.raises(BackendError, match="no row 'x' at batch 1; allowed: pruned int8 b4, pruned int8 b1"):
        full.row("x", 1)


def test_which_device_a_table_is_of() -> None:
    measured = table(row())
    moved = DEVICE.model_copy(update={"state": DeviceState(load_1min=9), "kernel": "6.1"})
    assert measured.is_of(moved)
    assert not measured.is_of(DEVICE.model_copy(update={"cpu": Cpu(model="Carmel", architecture="aarch64", cores=6)}))
    assert not measured.is_of(DEVICE.model_copy(update={"gpus": (Gpu(name="RTX 3060"),)}))


def test_a_row_with_two_values_names_them() -> None:
    text = table(row(two_values_ms=(0.202, 0.467))).describe()
    assert "#: pruned int8, batch 4 has two values, 0.202 and 0.467 ms, and no single one" in text


def test_the_median_has_an_interval_over_starts() -> None:
    found = row(start_p50_ms=(1.0, 1.1, 1.21)).p50_interval_ms
    assert found is not None
    assert found.value == pytest.approx(1.1)
    assert row(start_p50_ms=(1.0,)).p50_interval_ms is None
