"""What a command writes never costs what it reads, and is refused before the work where it cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eightfold.cli import app
from eightfold.errors import UsageError
from eightfold.files import require_output

READ = ["model.onnx", "ranges.json", "preprocess.json", "model.eightfold", "plan.json", "later.json", "photo.png"]
COMMANDS = {
    "bench model.eightfold -o": ("model.eightfold",),
    "calibrate model.onnx photo.png --preprocess preprocess.json -o": ("model.onnx", "preprocess.json", "photo.png"),
    "calibrate model.onnx photo.png --preprocess preprocess.json --equalized": ("model.onnx",),
    "calibrate model.onnx photo.png --preprocess preprocess.json --tensorrt-cache": ("model.onnx",),
    "quantize model.onnx ranges.json -o": ("model.onnx", "ranges.json"),
    "half model.onnx -o": ("model.onnx",),
    "build model.onnx -o": ("model.onnx",),
    "build model.onnx --ranges ranges.json -o": ("ranges.json",),
    "refit model.engine model.onnx -o": ("model.onnx",),
    "simplify model.onnx --images photo.png --preprocess preprocess.json -o": ("preprocess.json", "photo.png"),
    "compare model.onnx model.eightfold --plot": ("model.onnx", "model.eightfold"),
    "report model.eightfold --latency ranges.json -o": ("model.eightfold", "ranges.json"),
    "predict model.eightfold photo.png --json": ("model.eightfold", "photo.png"),
    "plan merge plan.json later.json -o": ("plan.json", "later.json"),
    "export model.eightfold.onnx -o": ("model.eightfold.onnx",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [*READ, "model.eightfold.onnx"]:
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["eightfold", *command.split()])
    assert app.main() == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("command", "read"), COMMANDS.items(), ids=COMMANDS)
def test_what_is_read_is_never_written_over(
    folder: Path,
    command: str,
    read: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in read:
        line = refused(f"{command} {name}", monkeypatch, capsys)
        assert line.startswith(
            f"eightfold: {name} is an input and would be overwritten; allowed: another output name"
        ) or (name == "model.eightfold.onnx" and "a file has that name" in line)
        assert (folder / name).read_text() == name


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("export")])
def test_a_directory_is_refused_before_the_work(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos").mkdir()
    assert "cannot write photos: it is a directory" in refused(f"{command} photos", monkeypatch, capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_below_a_file_is_refused_before_the_work(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(f"{command} photo.png/made", monkeypatch, capsys)
    assert f"cannot write photo.png/made: {folder / 'photo.png'} is a file; allowed: a name in a folder" in line


def test_a_bundle_is_refused_the_name_of_another_kind_of_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused("export model.onnx -o made.zip", monkeypatch, capsys)
    assert "made.zip as a bundle; allowed: a directory's name, or one that ends in .eightfold for one file" in line
    assert sorted(path.name for path in folder.iterdir()) == sorted([*READ, "model.eightfold.onnx"])


@pytest.mark.parametrize("option", ["--weights ranges.json", "--classes 3"])
def test_options_of_named_networks_are_refused_for_files(
    folder: Path, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(f"export model.onnx -o bundle {option}", monkeypatch, capsys)
    assert "weights or a number of classes beside model.onnx; allowed: those of a network" in line


@pytest.mark.parametrize(
    ("command", "name"),
    [("export model.onnx -o made", "manifest.json"), ("prune resnet18 -o made", "weights.safetensors")],
)
def test_a_folder_with_a_common_name_in_it_is_not_replaced(
    folder: Path, command: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Web applications and data sets have a manifest.json, too."""
    (folder / "made").mkdir()
    (folder / "made" / name).write_text('{"files": []}')
    (folder / "made" / "mine.txt").write_text("mine")
    assert "made holds other things" in refused(command, monkeypatch, capsys)
    assert (folder / "made" / "mine.txt").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert "no permission in" in refused("half model.onnx -o locked/half.onnx", monkeypatch, capsys)


def test_a_picture_of_a_folder_that_is_read_survives(tmp_path: Path) -> None:
    picture, table = tmp_path / "a.png", tmp_path / "a.json"
    for each in (picture, table):
        each.write_bytes(b"kept")
    with pytest.raises(UsageError, match=r"a\.png lies in a folder that is read, and would be overwritten"):
        require_output(picture, reads=[None, "net.onnx", tmp_path])
    require_output(table, reads=[tmp_path])  # of the same command before
    require_output(tmp_path / "new.png", reads=[tmp_path])
