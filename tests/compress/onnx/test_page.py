"""The page lists the operators that run."""

from __future__ import annotations

import re
from pathlib import Path

from eightfold.compress.onnx.operators import OPERATORS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "onnx-pruning.md"


def test_the_page_lists_every_operator() -> None:
    section = PAGE.read_text().partition("## Operators")[2].partition("## ")[0]
    assert set(re.findall(r"\w+", section)) == {*OPERATORS, "Constant", "If"}
