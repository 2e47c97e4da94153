"""`predict`, `bench` and `inspect` as a user types them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eightfold.cli.app import main
from eightfold.runtime.bench.latency import LatencyTable

Run = Callable[..., int]


@pytest.fixture
def eightfold(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program, in this process."""

    def run(*words: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
        return main()

    return run


@pytest.fixture
def red_png(tmp_path: Path) -> Path:
    import cv2

    path = tmp_path / "red.png"
    cv2.imwrite(str(path), np.full((9, 9, 3), (0, 0, 255), np.uint8))
    return path


def test_predict_prints_label_and_probability(
    eightfold: Run, bundle_path: Path, red_png: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eightfold("predict", bundle_path, red_png) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{red_png}: red 100.0%, ")
    assert "pruned fp32 on onnxruntime" in printed.err


def test_bench_prints_the_table_and_writes_it(
    eightfold: Run, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "latency.json"
    words = ["--batch", "1", "--backend", "onnxruntime", "--seconds", "0.02", "-o", output, "-o", tmp_path / "t.csv"]
    assert eightfold("bench", bundle_path, *words) == 0
    assert "pruned-fp32" in capsys.readouterr().out
    assert [row.batch for row in LatencyTable.load(output).rows] == [1]
    assert (tmp_path / "t.csv").read_text().startswith("name,batch,")


def test_inspect_tells_what_is_inside_and_that_it_is_whole(
    eightfold: Run, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eightfold("inspect", bundle_path) == 0
    text = capsys.readouterr().out
    assert "classify" in text
    assert re.search(r"pruned +fp32 +onnx +any +1 4 +3x8x8", text)
    assert re.search(r"every file matches its SHA-256", text)


@pytest.mark.parametrize("command", ["predict", "inspect", "bench"])
def test_a_damaged_bundle_is_one_line_and_exit_code_1(
    eightfold: Run, bundle_path: Path, red_png: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    victim = bundle_path / "onnx/pruned-b1.onnx"
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert eightfold(command, bundle_path, *([red_png] if command == "predict" else [])) == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith(f"eightfold: {bundle_path}: onnx/pruned-b1.onnx differs from its SHA-256 in the manifest")


def test_an_unreadable_image_is_one_line(
    eightfold: Run, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.png").write_text("no image")
    assert eightfold("predict", bundle_path, tmp_path / "x.png") == 1
    assert "x.png is not an image that can be decoded" in capsys.readouterr().err


def test_a_batch_that_is_not_there_is_wrong_usage(
    eightfold: Run, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert eightfold("bench", bundle_path, "--batch", "3") == 2
    assert capsys.readouterr().err == "eightfold: batch 3 is not in it; allowed: 1, 4\n"


def test_threads_that_are_no_number(eightfold: Run, bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eightfold("bench", bundle_path, "--threads", "many") == 2
    assert "--threads 'many'; allowed: a number of threads, or sweep" in capsys.readouterr().err
