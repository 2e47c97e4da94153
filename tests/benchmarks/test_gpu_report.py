"""The report of a first GPU, without one: onnxruntime answers for TensorRT's engines and the CPU for torch."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

import pytest

from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.files import sha256_of_file
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.backends.base import Session, SessionOptions
from eightfold.zoo.torch_backend import TorchBackend
from tests.export.tensorrt.stand_in import StandIn

NETWORK = "tests.export.networks:small_net"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "gpu_report.py"
    spec = importlib.util.spec_from_file_location("gpu_report", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_report"] = module
    spec.loader.exec_module(module)
    return module


class EveryEngine(StandIn):
    """Answers for any engine, with the graph in a folder that it was built from."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.folder = folder

    def open(self, path: Path, options: SessionOptions) -> Session:
        digest = EngineRecord.load(sidecar_path(path)).onnx_sha256
        (self.graph,) = {each for each in self.folder.rglob("*.onnx") if sha256_of_file(each) == digest}
        session = super().open(path, options)
        session.backend, session.version = self.name, "0"
        return session


def test_engines_agree_and_are_measured(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(BACKENDS, "tensorrt-rtx", EveryEngine(tmp_path))
    monkeypatch.setitem(BACKENDS, "torch-cuda", TorchBackend("torch-cuda", "cpu"))
    report = program.Report(tmp_path / "report.html")
    engines = [program.Engines("tensorrt-rtx", "rtx:sm86")]
    program.add_networks(report, [NETWORK], engines, ["torch-cuda"], [1, 2], 0.05, time.monotonic() + 100)
    page = report.path.read_text(encoding="utf-8")
    assert report.failures == 0, page
    for name in ("torch-cuda", "tensorrt-rtx fp32", "tensorrt-rtx fp16", "tensorrt-rtx int8"):
        assert name in page
    assert page.count('<tr class="good">') == 6


def test_a_wrong_engine_is_a_failure(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(program, "PRECISIONS", ("fp32",))
    monkeypatch.setattr(program, "CLOSE", {"fp32": 1.1})
    monkeypatch.setitem(BACKENDS, "tensorrt-rtx", EveryEngine(tmp_path))
    report = program.Report(tmp_path / "report.html")
    engines = [program.Engines("tensorrt-rtx", "rtx:sm86")]
    program.add_networks(report, [NETWORK], engines, [], [1], 0.02, time.monotonic() + 100)
    assert report.failures == 1
    assert '<tr class="bad"><td>tensorrt-rtx fp32' in report.path.read_text(encoding="utf-8")


def test_a_network_that_cannot_be_loaded_is_a_row(program: ModuleType, tmp_path: Path) -> None:
    report = program.Report(tmp_path / "report.html")
    program.add_networks(report, ["resnet5000"], [], [], [1], 0.02, time.monotonic() + 100)
    program.add_networks(report, ["resnet18"], [], [], [1], 0.02, time.monotonic() - 1)
    page = report.path.read_text(encoding="utf-8")
    assert report.failures == 2
    assert "resnet5000" in page
    assert "not run: the time is over" in page


def test_failing_gpu_tests_are_a_failure(program: ModuleType, tmp_path: Path) -> None:
    failing = tmp_path / "test_it.py"
    failing.write_text("def test_a(): assert False\n", encoding="utf-8")
    report = program.Report(tmp_path / "report.html")
    program.add_tests(report, timeout=60, selection=[str(failing), "-c", "/dev/null"])
    assert report.failures == 1
    assert "1 failed" in report.path.read_text(encoding="utf-8")
    passing = tmp_path / "test_other.py"
    passing.write_text("def test_a(): pass\n", encoding="utf-8")
    program.add_tests(report, timeout=60, selection=[str(passing), "-c", "/dev/null"])
    assert report.failures == 1


def test_without_a_gpu_it_says_so(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "cuda_absent", lambda: "no driver")
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", "--output", str(tmp_path / "out.html")])
    assert program.main() == 1
    assert "no usable NVIDIA GPU: no driver" in capsys.readouterr().err
    assert not (tmp_path / "out.html").exists()
