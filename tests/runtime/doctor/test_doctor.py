"""What is missing, what is broken and what works are three different things."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.extras import EXTRA_OF
from eightfold.runtime.devices.device_cpu import Cpu
from eightfold.runtime.devices.device_gpu import Gpu
from eightfold.runtime.devices.device_jetson import Jetson
from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.runtime.devices.devices import Device, DeviceState
from eightfold.runtime.doctor import doctor, import_check

PACKAGES = {
    "eightfold_works": "__version__ = '1'",
    "eightfold_works_too": "",
    "eightfold_sleeps": "import time; time.sleep(60)",
    "eightfold_lacks_a_library": "raise ImportError('libcudnn.so.9: cannot open shared object file')",
    "eightfold_crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "eightfold_prints": "print('hello from a chatty package')",
    "eightfold_exits": "import sys; sys.exit(3)",
    "eightfold_ends": "import os; os._exit(3)",
}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in PACKAGES.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "eightfold_left_over").mkdir()
    monkeypatch.syspath_prepend(tmp_path)


WHAT_HAPPENS = {
    "eightfold_works": ("ok", ""),
    "eightfold_prints": ("ok", ""),
    "eightfold_crashes": ("broken", "importing it crashed Python (SIGSEGV)"),
    "eightfold_lacks_a_library": ("broken", "ImportError: libcudnn.so.9: cannot open shared object file"),
    "eightfold_exits": ("broken", "SystemExit: 3"),
    "eightfold_ends": ("broken", "importing it ended Python"),
    "eightfold_left_over": ("broken", "ImportError: an empty folder stands where the package should be"),
    "eightfold_works_too": ("ok", ""),
}


@pytest.mark.usefixtures("packages")
def test_broken_is_told_from_working_and_hides_no_other() -> None:
    findings = doctor.examine(list(WHAT_HAPPENS))
    assert {each.module: (each.state, each.detail) for each in findings} == WHAT_HAPPENS
    assert findings[2].remedy == "pip install --force-reinstall --no-deps eightfold_crashes"


@pytest.mark.usefixtures("packages")
def test_an_import_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_check, "IMPORT_TIMEOUT_S", 1.0)
    (finding,) = doctor.examine(["eightfold_sleeps"])
    assert (finding.state, finding.detail) == ("broken", "importing it did not end within 1 s")


def test_missing_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRA_OF, "eightfold_absent", "cpu")
    (finding,) = doctor.examine(["eightfold_absent"])
    assert (finding.state, finding.remedy) == ("missing", "pip install 'eightfold[cpu]'")


def test_jetpack_s_tensorrt_hidden_by_a_virtual_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = doctor.examine(["tensorrt"], probe=DeviceProbe(root=tmp_path))
    assert "--system-site-packages" in finding.remedy


def test_every_optional_package_is_examined() -> None:
    shown = [module for modules in doctor.sections().values() for module in modules]
    assert sorted(shown) == sorted(EXTRA_OF)


def test_what_is_in_no_section_is_shown_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRA_OF, "eightfold_new", "cpu")
    assert "eightfold_new" in doctor.sections()["other"]
    (finding,) = doctor.examine(["eightfold_new"])
    assert finding.section == "other"


def found(**states: str) -> dict[str, doctor.Finding]:
    names = {**dict.fromkeys(doctor.SECTIONS["backends"], "missing"), **states}
    return {
        name: doctor.Finding.model_validate({"section": "backends", "module": name, "state": state})
        for name, state in names.items()
    }


def advice(device: Device, **states: str) -> str:
    return "\n".join(doctor._advice(device, found(**states)))


@pytest.fixture(autouse=True)
def no_clashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed where the tests run is no business of theirs."""
    monkeypatch.setattr(doctor, "distributions_of", lambda name: {})


def test_advice_about_packages_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.20", "onnxruntime-gpu": "1.20"}
    monkeypatch.setattr(doctor, "distributions_of", lambda name: both if name == "onnxruntime" else {})
    assert "pip uninstall onnxruntime onnxruntime-gpu, then install one" in advice(QUIET, onnxruntime="ok")


CPU = Cpu(model="Test", architecture="x86_64", cores=4, features=("avx2",))
QUIET = Device(cpu=CPU.model_copy(update={"features": ("avx512_vnni",)}), os="Test OS")


def test_a_machine_in_order_gets_no_advice() -> None:
    assert advice(QUIET, onnxruntime="ok") == ""


def test_advice_about_backends() -> None:
    assert "no backend can run a model here" in advice(QUIET)
    assert "running them needs an NVIDIA GPU" in advice(QUIET, tensorrt_rtx="ok")
    assert "a GPU is here" in advice(QUIET.model_copy(update={"gpus": (Gpu(name="T4"),)}), onnxruntime="ok")


def test_advice_about_times() -> None:
    board = Device(
        cpu=CPU.model_copy(update={"quota_cores": 1.5, "virtual": True}),
        os="Test OS",
        jetson=Jetson(l4t="36.4", clocks_locked=False),
        state=DeviceState(load_1min=3.0),
    )
    said = advice(board, onnxruntime="ok")
    for words in ("8-bit dot", "jetson_clocks", "may use 1.5 of 4 cores", "virtual machine", "load is 3.0 on 4"):
        assert words in said
    slow = QUIET.model_copy(update={"cpu": CPU.model_copy(update={"governor": "powersave"})})
    assert "CPU governor is powersave" in advice(slow, onnxruntime="ok")


def test_describe_keeps_missing_and_broken_apart() -> None:
    findings = (
        doctor.Finding(section="backends", module="openvino", state="missing", remedy="pip install 'eightfold[x]'"),
        doctor.Finding(section="backends", module="onnxruntime", state="broken", detail="no lib", remedy="pip again"),
    )
    diagnosis = doctor.Diagnosis(eightfold="0", python="3", executable="python", device=QUIET, findings=findings)
    lines = diagnosis.describe().splitlines()
    assert "  missing  openvino                   pip install 'eightfold[x]'" in lines
    assert "  broken   onnxruntime                no lib" in lines
    assert "           try: pip again" in lines
    assert [finding.module for finding in diagnosis.broken] == ["onnxruntime"]


def test_the_command(tmp_path: Path) -> None:
    """A broken package gives exit code 1; JSON can be read back. Looks at stand-ins, to be quick."""
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no lib')")
    program = (
        "import sys; sys.argv = ['eightfold', 'doctor', '--json']\n"
        "from eightfold.runtime.doctor import doctor; doctor.sections = lambda: {'backends': ('onnxruntime',)}\n"
        "doctor._advice = lambda device, found: []\n"
        "from eightfold.cli.app import main; sys.exit(main())"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1, done.stderr
    diagnosis = doctor.Diagnosis.from_json(done.stdout)
    assert [each.detail for each in diagnosis.findings] == ["ImportError: no lib"]
