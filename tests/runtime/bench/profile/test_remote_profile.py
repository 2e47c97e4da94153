"""Profiles on other machines: a real sshd on the loopback interface, whose `eightfold` is a device of our own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import eightfold
from eightfold.errors import BackendError, UsageError
from eightfold.runtime.bench.profile import remote_profile
from eightfold.runtime.bench.profile.layer_list import LayerList
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.remote_profile import (
    DeviceJob,
    describe_devices,
    jobs_of,
    profile_devices,
    profile_on,
)
from eightfold.runtime.bench.profile.store import settings_of
from tests.sshd import free_port, needs_sshd, running_sshd

CONV = LayerShape(kind="conv", size=(8, 8), kernel=(1, 1))
POOL = LayerShape(kind="max_pool", size=(8, 8), kernel=(2, 2))
LAYERS = LayerList.of({CONV: (32, 64), POOL: (1, 64)})
SOURCE = str(Path(eightfold.__file__).parents[1])
# A device whose latency is known; it may stop after some points, and then goes on the next time.
BOARD = """#!{python}
import os, pathlib, sys
sys.path.insert(0, {source!r})  # the package under test
here = pathlib.Path({folder!r})
from eightfold.runtime.bench.profile import layer_list, settings
from eightfold.cli.app import main

asked = []

def timer(points, _):
    for point in points:
        asked.append(point)
        (here / "measured").open("a").write("x")
    last = here / "dies-after"
    if last.exists() and len(asked) > int(last.read_text()):
        if (here / "speaks").exists():
            print((here / "speaks").read_text(), file=sys.stderr)
            os._exit(1)
        os.kill(os.getpid(), 11)
    return [0.001 * (i + o) for _, i, o in points], 1.0

layer_list.time_layers = timer
settings.device_identity = lambda device: ("board", (here / "name").read_text())
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    with running_sshd(folder) as number:
        yield number


@pytest.fixture
def board(folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files that steer the device."""
    script = folder / "bin/a-board"
    script.write_text(BOARD.format(python=sys.executable, folder=str(folder), source=SOURCE))
    script.chmod(0o755)
    monkeypatch.setattr(remote_profile, "PROGRAM", "a-board")
    (folder / "name").write_text("one")
    yield folder
    for name in ("dies-after", "speaks", "measured"):
        (folder / name).unlink(missing_ok=True)


def job(port: int, **options: object) -> DeviceJob:
    return DeviceJob(f"ssh://127.0.0.1:{port}", threads=1, **options)  # type: ignore[arg-type]


def measured(board: Path) -> int:
    file = board / "measured"
    return len(file.read_text()) if file.exists() else 0


@needs_sshd
def test_points_come_home_and_are_asked_for_once(board: Path, port: int, tmp_path: Path) -> None:
    found = profile_on(LAYERS, job(port), tmp_path / "points.jsonl")
    assert found.profile is not None
    assert found.profile.at(CONV, 32, 64) == pytest.approx(0.001 * 96)
    assert found.profile.settings.device == "board, one"
    assert found.new == found.points > 20
    before = measured(board)
    again = profile_on(LAYERS, job(port), tmp_path / "points.jsonl")
    assert (again.new, measured(board)) == (0, before)
    more = profile_on(LayerList.of({CONV: (32, 128)}), job(port), tmp_path / "points.jsonl")
    assert 0 < more.new < found.new


@needs_sshd
def test_a_device_that_dies_loses_nothing_and_goes_on(board: Path, port: int, tmp_path: Path) -> None:
    (board / "dies-after").write_text("60")
    (first,) = profile_devices(LAYERS, [job(port)], tmp_path)
    assert "killed by SIGSEGV" in first.failed
    assert first.points > 0
    assert first.profile is None
    (board / "dies-after").unlink()
    (second,) = profile_devices(LAYERS, [job(port)], tmp_path)
    assert not second.failed
    assert second.profile is not None
    assert second.points == first.points + second.new
    table = describe_devices([first, second], lambda profile: profile.at(CONV, 32, 64))
    assert "killed by SIGSEGV" in table
    assert "0.096" in table


@needs_sshd
def test_a_failure_leaves_the_other_devices_alone(board: Path, port: int, tmp_path: Path) -> None:
    jobs = [job(free_port()), job(port), job(port, precision="int8")]
    results = profile_devices(LAYERS, jobs, tmp_path)
    assert "cannot reach 127.0.0.1" in results[0].failed
    assert [bool(each.profile) for each in results] == [False, True, True]
    assert len({each.path for each in results}) == 3


@needs_sshd
def test_a_file_of_another_device_is_refused_with_the_command(board: Path, port: int, tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    profile_on(LAYERS, job(port), path)
    text = path.read_text()
    (board / "name").write_text("two")
    message = (
        r"was measured with device 'board, one'; allowed: 'board, two'; name another file: eightfold profile MODEL"
    )
    with pytest.raises(BackendError, match=message):
        profile_on(LAYERS, job(port), path)
    assert path.read_text() == text
    kept = profile_devices(LAYERS, [job(port)], tmp_path)[0]
    assert settings_of(kept.path).device == "board, two"


@needs_sshd
def test_a_back_end_that_is_missing_there_is_one_line(board: Path, port: int, tmp_path: Path) -> None:
    (board / "dies-after").write_text("0")
    (board / "speaks").write_text("eightfold: openvino is not installed; run: pip install openvino")
    with pytest.raises(BackendError, match=r"127\.0\.0\.1 answered: eightfold: openvino is not.*openvino$") as caught:
        profile_on(LAYERS, job(port), tmp_path / "points.jsonl")
    assert "\n" not in str(caught.value)


@needs_sshd
def test_a_full_disk_of_the_device_is_one_line(board: Path, port: int, tmp_path: Path) -> None:
    tar = board / "bin/tar"
    tar.write_text("#!/bin/sh\necho 'tar: list.layers.json: Cannot write: No space left on device' >&2\nexit 2\n")
    tar.chmod(0o755)
    try:
        with pytest.raises(BackendError, match=r"127\.0\.0\.1 answered: tar: .*No space left on device$"):
            profile_on(LAYERS, job(port), tmp_path / "points.jsonl")
    finally:
        tar.unlink()


@needs_sshd
def test_a_rejected_key_is_one_line(board: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = os.environ["EIGHTFOLD_SSH"]
    monkeypatch.setenv("EIGHTFOLD_SSH", known.replace(str(board / "user"), str(board / "host")))
    with pytest.raises(BackendError, match=r"cannot reach 127\.0\.0\.1 \(.*Permission denied.*ssh 127\.0\.0\.1$"):
        profile_on(LAYERS, job(port), tmp_path / "points.jsonl")


@needs_sshd
def test_a_device_without_the_program_is_one_line(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_profile, "PROGRAM", "none-such")
    with pytest.raises(BackendError, match=r"has no none-such on its PATH; there, run: pip install"):
        profile_on(LAYERS, job(port), tmp_path / "points.jsonl")


@needs_sshd
def test_an_interrupt_keeps_the_points_so_far(
    board: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = remote_profile._Stop()
    first = remote_profile._keep

    def interrupted(lines: Iterator[str], *rest: object, **options: object) -> object:
        def some() -> Iterator[str]:
            for number, line in enumerate(lines):
                yield line
                if number == 6:
                    stop.ask()

        return first(some(), *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(remote_profile, "_keep", interrupted)
    result = remote_profile._profile_on(LAYERS, job(port), tmp_path / "points.jsonl", stop)
    assert result.failed == "interrupted; the points so far are kept"
    assert result.points >= 5
    monkeypatch.undo()


def test_devices_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(
        "devices:\n- ssh://one\n- {device: 'ssh://me@two:2222', target: openvino, precision: int8, threads: 4}\n"
    )
    found = jobs_of([str(file), "ssh://three"], None, "fp32", 2)
    assert found == [
        DeviceJob("ssh://one", None, "fp32", 2),
        DeviceJob("ssh://me@two:2222", "openvino", "int8", 4),
        DeviceJob("ssh://three", None, "fp32", 2),
    ]
    assert len({each.file_name for each in found}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devices: []\n", "names no devices; allowed: devices:"),
        ("- ssh://one\n", "names no devices"),
        ("devices: [ssh://one, ssh://one]\n", "ssh://one is named twice"),
        ("devices: [{host: one}]\n", "an entry .*; allowed: a URL, or the keys device, precision, target, threads"),
        ("devices: [one]\n", "device 'one'; allowed: ssh://"),
        ("devices: [{device: 'ssh://one', precision: fp8}]\n", "unknown precision of a profile 'fp8'"),
        ("devices: [\n", "cannot be read"),
    ],
)
def test_a_bad_file_of_devices_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        jobs_of([str(file)], None, "fp32", None)
    with pytest.raises(UsageError, match="cannot be read"):
        jobs_of([str(tmp_path / "none.yaml")], None, "fp32", None)
