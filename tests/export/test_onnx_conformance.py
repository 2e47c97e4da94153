"""The oracle is the outputs that the ONNX project expects of its own backend tests."""

from __future__ import annotations

import json
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


# Name -> steps, one of how many models goes through them, and the least number of right answers.
RUNS = {"in process": (IN_PROCESS, 73, 1000), "simplify": (("simplify",), 311, 4)}
# One process for all: the ONNX project takes seconds to compute its cases.
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import onnx_conformance
for words in json.loads(sys.argv[2]):
    sys.argv = ["onnx_conformance.py", *words]
    print(onnx_conformance.main(), "is the exit code", flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the results and what was printed of each run."""
    folder = tmp_path_factory.mktemp("conformance")
    words = [
        ["--every", str(every), *(word for step in steps for word in ("--step", step)), "--output", f"{name}.md"]
        for name, (steps, every, _) in RUNS.items()
    ]
    command = [sys.executable, "-c", CODE, str(PROGRAM.parent), json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    *said, rest = done.stdout.split("is the exit code\n")
    assert not rest
    for name, text in zip(RUNS, said, strict=True):
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_backend_tests_of_onnx_come_out_right(folder: Path, name: str) -> None:
    printed = (folder / f"{name}.txt").read_text()
    assert printed.splitlines()[-1].strip() == "0", printed
    said = re.search(r"(\d+) right, 0 wrong", printed)
    assert said is not None
    assert int(said[1]) >= RUNS[name][2]
    assert "## Wrong" not in (folder / f"{name}.md").read_text()
