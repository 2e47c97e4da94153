"""The page on training: its code runs from top to bottom, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eightfold.cli.app import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S))
    exec(compile(code, "training.md", "exec"), {})  # the page's own code
    said = capsys.readouterr().out
    assert "suggested: --keep" in said
    assert "3 layers round their weights and inputs" in said
    assert (tmp_path / "int4.onnx").is_file()


def test_the_commands_exist() -> None:
    named = set(re.findall(r"(?:`|^    )eightfold ([a-z]+)", PAGE, re.M))
    assert {"sparsify", "distill", "qat", "iterate", "sensitivity"} <= named
    assert named <= set(COMMANDS)
