from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[3] / "benchmarks" / "fuzz_bundle.py"


def test_damaged_bundles_are_refused_in_words(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--cases", "240", "--seed", "1", "--result", str(tmp_path / "result.md")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 faults" in (tmp_path / "result.md").read_text()
