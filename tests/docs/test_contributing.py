"""The table of CONTRIBUTING that says where to add what names files and tables that exist, at most three a task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where to add what")[2]
ROWS = dict(re.findall(r"^\| (an? [^|]+) \| ([^|]+ \| [^|]+) \|$", TABLE, re.M))


def test_every_task_is_in_the_table() -> None:
    assert len(ROWS) >= 12


@pytest.mark.parametrize("task", ROWS)
def test_a_task_takes_three_files_that_exist(task: str) -> None:
    opened, then = ROWS[task].split(" | ")
    files = [ROOT / "src" / "eightfold" / name for name in re.findall(r"`([^`]+)`", opened)]
    assert 1 <= len(files) <= 3
    assert [file for file in files if not file.exists()] == []
    code = "".join(file.read_text() for file in files if file.is_file())
    assert [name for name in re.findall(r"`([A-Z]+)`", then) if not re.search(rf"^{name}\b.* = ", code, re.M)] == []
