"""The last words of a run can be typed as they stand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.pipeline.summary import program


def test_the_command_is_found_without_an_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("eightfold") is None
    done = subprocess.run([program(), "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("eightfold ")


def test_it_is_short_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert program() == "eightfold"
