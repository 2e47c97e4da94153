"""The oracle is the outputs that the ONNX project expects of its own backend tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "onnx_conformance.py"
IN_PROCESS = (
    "all passes",
    "constants",
    "freeze",
    "opset 13 (tensorrt:8.2)",
    "opset 20 (tensorrt:10.3)",
    "float16",
    "bfloat16",
)


@pytest.mark.parametrize(
    ("steps", "every", "least"),
    [
        pytest.param(IN_PROCESS, 73, 1000, id="in process"),
        pytest.param(("simplify",), 311, 4, id="simplify", marks=pytest.mark.slow),
    ],
)
def test_the_backend_tests_of_onnx_come_out_right(
    tmp_path: Path, steps: tuple[str, ...], every: int, least: int
) -> None:
    result = tmp_path / "result.md"
    options = [word for step in steps for word in ("--step", step)]
    command = [sys.executable, str(PROGRAM), "--every", str(every), *options, "--output", str(result)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"(\d+) right, 0 wrong", done.stdout)
    assert said is not None
    assert int(said[1]) >= least
    assert "## Wrong" not in result.read_text()
