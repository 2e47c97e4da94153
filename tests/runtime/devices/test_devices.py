"""Device facts, read from trees that hold what real machines show."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.runtime.devices.device_probe import DeviceProbe, run_command
from eightfold.runtime.devices.devices import Device, describe_device, read_state, runtime_versions

XEON = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)   Processor\ncpu MHz\t\t: 2100.000\n"
    "flags\t\t: fpu sse4_2 avx2 hypervisor avx512f avx512_vnni\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3,6\n",
    "proc/meminfo": "MemTotal:       24731708 kB\nMemFree: 1 kB\n",
    "proc/loadavg": "0.45 0.30 0.10 1/100 4242\n",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
    "proc/sys/kernel/osrelease": "6.1.0\n",
    "sys/fs/cgroup/cpu.max": "150000 100000\n",
    ".dockerenv": "",
}
POLICY = "sys/devices/system/cpu/cpufreq/policy"
GPU = "sys/class/devfreq/17000000.ga10b/"
MONITOR = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
ORIN = {
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nFeatures\t: fp asimd asimdhp asimddp\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n"
        for core in range(6)
    ),
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ...",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n",
    f"{POLICY}0/scaling_governor": "schedutil\n",
    f"{POLICY}0/scaling_min_freq": "1728000\n",
    f"{POLICY}0/scaling_max_freq": "1728000\n",
    f"{POLICY}0/scaling_cur_freq": "1728000\n",
    f"{GPU}min_freq": "1020000000\n",
    f"{GPU}max_freq": "1020000000\n",
    f"{GPU}cur_freq": "1020000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    f"{MONITOR}in1_label": "VDD_IN\n",
    f"{MONITOR}in1_input": "5000\n",
    f"{MONITOR}curr1_input": "1200\n",
    f"{MONITOR}in2_label": "VDD_CPU_GPU_CV\n",  # its current cannot be read: the rail is left out
    f"{MONITOR}in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/oc1_event_cnt": "2\n",
    "sys/class/hwmon/hwmon1/oc3_event_cnt": "1\n",
}
SMI = {
    "name": ("NVIDIA H100 80GB HBM3", "Tesla T4"),
    "memory.total": ("81559", "15360"),
    "driver_version": ("550.54.15", "550.54.15"),
    "clocks.max.sm": ("1980", "1590"),
    "clocks.sm": ("345", "585"),
    "clocks.mem": ("2619", "5001"),
    "temperature.gpu": ("34", "84"),
    "power.draw": ("69.21", "[N/A]"),
    "power.limit": ("700.00", "70.00"),
    "persistence_mode": ("Enabled", "Disabled"),
    "compute_cap": ("9.0", "7.5"),
    "clocks_event_reasons.active": ("0x0000000000000001", "0x0000000000000024"),
    "clocks_throttle_reasons.active": ("0x0000000000000001", "0x0000000000000024"),
}


def nvidia_smi(command: Sequence[str], unknown: Collection[str] = ()) -> str | None:
    """Answers as nvidia-smi does: one field that it does not know, and it answers nothing."""
    if command[0] != "nvidia-smi":
        return None
    fields = command[1].removeprefix("--query-gpu=").split(",")
    if any(field in unknown for field in fields):
        return None
    return "".join(", ".join(SMI[field][gpu] for field in fields) + "\n" for gpu in range(2))


def recorded(
    root: Path, files: Mapping[str, str], machine: str, answers: Mapping[str, str] | None = None
) -> DeviceProbe:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="replace")
    return DeviceProbe(root=root, run=lambda command: (answers or {}).get(command[0]), machine=machine)


def test_x86_container(tmp_path: Path) -> None:
    device = describe_device(recorded(tmp_path, XEON, "x86_64"))
    assert device.cpu.model == "Intel(R) Xeon(R) Processor"
    assert device.cpu.cores == 5
    assert device.cpu.quota_cores == 1.5
    assert device.cpu.features == ("sse4_2", "avx2", "avx512f", "avx512_vnni")
    assert device.cpu.has_int8_dot
    assert device.cpu.virtual
    assert device.cpu.clocks_locked is None
    assert device.memory_bytes == 24731708 * 1024
    assert device.os == "Debian GNU/Linux 12 (bookworm)"
    assert device.container == "docker"
    assert device.gpus == ()
    assert device.jetson is None
    assert device.state.cpu_mhz == 2100.0
    assert device.state.load_1min == 0.45
    assert device.line() == "Intel(R) Xeon(R) Processor, 5 cores, 24 GiB"
    assert "limited to 1.5 cores" in device.describe()


def test_jetson_with_locked_clocks(tmp_path: Path) -> None:
    device = describe_device(recorded(tmp_path, ORIN, "aarch64"))
    assert device.cpu.model == "6 x Cortex-A78AE"
    assert device.cpu.features == ("neon", "fp16", "dotprod")
    assert device.jetson is not None
    assert device.jetson.l4t == "36.4.3"
    assert device.jetson.power_mode == "25W"
    assert device.jetson.clocks_locked is True
    assert device.line() == "NVIDIA Jetson Orin Nano Developer Kit"


def test_state_leaves_out_what_cannot_be_read(tmp_path: Path) -> None:
    state = read_state(recorded(tmp_path, ORIN, "aarch64"))
    assert state.temperatures_c == {"cpu-thermal": 51.25}
    assert state.rails_mw == {"VDD_IN": 6000.0}
    assert state.gpu_mhz == 1020.0
    assert state.slowdowns == 3
    assert state.describe() == "CPU 1728 MHz, GPU 1020 MHz, hottest 51 C (cpu-thermal), VDD_IN 6.0 W, " + (
        "3 slowdowns since boot"
    )


def test_jetson_with_free_clocks_says_what_to_type(tmp_path: Path) -> None:
    free = ORIN | {f"{GPU}min_freq": "306000000\n"}
    device = describe_device(recorded(tmp_path, free, "aarch64", {"nvpmodel": "NV Power Mode: MAXN\n0\n"}))
    assert device.jetson is not None
    assert device.jetson.power_mode == "MAXN"  # the program knows better than its files
    assert "clocks NOT locked (sudo jetson_clocks)" in device.describe()


def test_a_power_mode_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    silent = {path: text for path, text in ORIN.items() if "nvpmodel" not in path}
    device = describe_device(recorded(tmp_path, silent, "aarch64"))
    assert device.jetson is not None
    assert device.jetson.power_mode is None
    assert "power mode unknown" in device.describe()


def test_jetpack_4_rails(tmp_path: Path) -> None:
    monitor = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
    files = {f"{monitor}rail_name_0": "POM_5V_IN\n", f"{monitor}in_power0_input": "2450\n"}
    assert read_state(recorded(tmp_path, files, "aarch64")).rails_mw == {"POM_5V_IN": 2450.0}


def test_gpus_from_nvidia_smi(tmp_path: Path) -> None:
    first, second = describe_device(replace(recorded(tmp_path, XEON, "x86_64"), run=nvidia_smi)).gpus
    assert (first.compute_capability, first.max_mhz, first.throttled_by) == ("9.0", 1980.0, ())
    assert second.power_w is None
    assert second.throttled_by == ("power cap", "software thermal slowdown")
    assert "throttled by power cap" in second.describe()


@pytest.mark.parametrize(
    ("unknown", "capability", "reasons"),
    [
        (["clocks_event_reasons.active"], "7.5", 2),
        (["clocks_event_reasons.active", "clocks_throttle_reasons.active"], "7.5", 0),
        (["clocks_event_reasons.active", "clocks_throttle_reasons.active", "compute_cap"], None, 0),
    ],
)
def test_older_drivers_know_fewer_fields(
    tmp_path: Path, unknown: list[str], capability: str | None, reasons: int
) -> None:
    probe = replace(recorded(tmp_path, XEON, "x86_64"), run=partial(nvidia_smi, unknown=unknown))
    gpu = describe_device(probe).gpus[1]
    assert (gpu.name, gpu.compute_capability, len(gpu.throttled_by)) == ("Tesla T4", capability, reasons)


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    device = describe_device(recorded(tmp_path, {}, "riscv64"))
    assert device.cpu.model == "unknown processor"
    assert device.memory_bytes is None
    assert device.describe()


EVERY_FILE = sorted({*XEON, *ORIN, "proc/stat", "proc/uptime", "proc/self/stat"} - {".dockerenv"})
NONSENSE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "\n", "-1", "nan", "1e999", "0-", "3-1", "Cpus_allowed_list:\t0-,x", "max 100000", "1 0", "42 (a)"]
    ),
    st.sampled_from([*XEON.values(), *ORIN.values()]),
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(EVERY_FILE, NONSENSE)), NONSENSE)
@settings(max_examples=60, deadline=None)  # it waits for a disk that others use, too
def test_nonsense_in_any_file_is_no_error(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str], said: str
) -> None:
    root = tmp_path_factory.mktemp("root")
    device = describe_device(recorded(root, files, "x86_64", {"nvidia-smi": said, "nvpmodel": said}))
    assert Device.from_json(device.to_json()) == device
    assert device.describe()
    shutil.rmtree(root)


def test_json_round_trip(tmp_path: Path) -> None:
    device = describe_device(replace(recorded(tmp_path, ORIN, "aarch64"), run=nvidia_smi))
    assert Device.from_json(device.to_json()) == device


@pytest.mark.parametrize("command", [["no-such-program-eightfold"], ["false"]])
def test_commands_that_are_absent_or_fail_answer_none(command: list[str]) -> None:
    assert run_command(command) is None


def test_this_machine() -> None:
    device = describe_device()
    assert device.cpu.cores
    assert device.memory_bytes
    assert {"python", "numpy", "eightfold"} <= runtime_versions().keys()
