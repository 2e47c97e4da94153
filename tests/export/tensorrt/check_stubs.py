"""Checks the TensorRT adapters with mypy against published type stubs of TensorRT 10.13.

Usage: pip install --no-deps --target STUBS tensorrt-stubs==10.13.0.35.1
       python tests/export/tensorrt/check_stubs.py STUBS

The stubs go to a folder of their own: beside the other packages they would pass for an installed TensorRT. They were
generated and are no valid Python everywhere: a copy is mended first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKED = ("src/eightfold/export/tensorrt", "src/eightfold/runtime/backends/tensorrt.py")
MENDED = (
    (r"= <[^>]*>( at 0x\w+>?)?", "= ..."),  # defaults as they print
    (r"\bin: ", "in_: "),  # a parameter that is a keyword
    (r"(= None[^)]*, \w+: int)\)", r"\1 = ...)"),  # one without a default behind others that have one
)


def main(stubs: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(stubs, Path(folder) / "stubs")
        for file in copy.rglob("*.pyi"):
            text = file.read_text()
            for pattern, replacement in MENDED:
                text = re.sub(pattern, replacement, text)
            # What the stubs themselves do wrong is not ours.
            file.write_text(f"# mypy: ignore-errors\n{text}")
        command = [sys.executable, "-m", "mypy", "--cache-dir", f"{folder}/cache", *CHECKED]
        return subprocess.run(command, env=dict(os.environ, MYPYPATH=f"{copy}")).returncode


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
