"""`eightfold profile --device`: a table of all devices, and one line for those that failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import eightfold as ef
from eightfold.cli.app import main
from eightfold.runtime.bench.profile import remote_profile
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.layer_list import LayerList
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.micro_graph import micro_graph
from eightfold.runtime.bench.profile.profile_layers import profile_layers
from eightfold.runtime.bench.profile.remote_profile import DeviceJob, DeviceResult
from eightfold.runtime.bench.profile.settings import ProfileSettings
from eightfold.runtime.bench.profile.store import ProfileStore

SETTINGS = ProfileSettings(target="cpu-arm", backend="onnxruntime", backend_version="1", threads=1, device="a board")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(micro_graph(LayerShape(kind="conv", size=(8, 8), kernel=(1, 1), activation="relu"), 16, 32))
    return path


def whole(layers: LayerList, job: DeviceJob, path: Path) -> DeviceResult:
    def timer(points: Sequence[Point], _: ProfileSettings) -> tuple[list[float], float]:
        return [0.25 for _ in points], 1.0

    profile = profile_layers(layers.widest(), ProfileStore(SETTINGS, None), timer=timer)
    return DeviceResult(job, path, 40, 30, profile)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, file: Path) -> Callable[..., int]:
    def command(*words: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["eightfold", "profile", str(file), *map(str, words)])
        return main()

    return command


def test_every_device_has_a_row_and_a_failure_is_one_line(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def devices(layers: LayerList, jobs: Sequence[DeviceJob], folder: Path, *, said: Any) -> list[DeviceResult]:
        found = [whole(layers, jobs[0], folder / "one"), DeviceResult(jobs[1], folder / "two", 7, 7, None, "it died")]
        for each in found:
            said(each)
        return found

    monkeypatch.setattr(remote_profile, "profile_devices", devices)
    assert run("--device", "ssh://one", "--device", "ssh://two", "-o", tmp_path) == 1
    said = capsys.readouterr()
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("ssh://")}
    assert "0.250" in rows["ssh://one"]
    assert "cpu-arm" in rows["ssh://one"]
    assert "it died" in rows["ssh://two"]
    assert f"kept {tmp_path / 'two'}" in said.out
    last = said.err.splitlines()[-1]
    assert "1 of 2 devices did not finish, the first: it died; run the same command again" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "orin"], "device 'orin'; allowed: ssh://"),
        (["--device", "none.yaml"], "none.yaml cannot be read"),
        (["--stream"], "--stream without a file"),
    ],
)
def test_bad_options_are_one_line(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(*words) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_one_device_is_a_profile(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[DeviceJob, Path]] = []

    def on(layers: LayerList, job: DeviceJob, path: Path) -> DeviceResult:
        asked.append((job, path))
        return whole(layers, job, path)

    monkeypatch.setattr("eightfold.compress.profile_network.profile_on", on)
    found = ef.profile(file, precision="int8", device="ssh://board", cache=tmp_path / "points.jsonl")
    assert asked == [(DeviceJob("ssh://board", None, "int8", None), tmp_path / "points.jsonl")]
    assert found.profile.measured == 30
    assert "30 points measured now" in found.describe()
