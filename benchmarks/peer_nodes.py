"""How many nodes onnxsim and onnxslim leave, each as it comes, on its own, in a process with a time limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

CALLS = {"onnxsim": "onnxsim.simplify(model)[0]", "onnxslim": "onnxslim.slim(model)"}
PROGRAM = "import sys, onnx, {tool}; model = onnx.load(sys.argv[1]); onnx.save({call}, sys.argv[2])"


def peer_nodes(tool: str, path: Path, folder: Path, time_limit_s: float = 600.0) -> str:
    """The number of nodes, or "fails"."""
    target = folder / f"peer-{tool}.onnx"
    command = [sys.executable, "-c", PROGRAM.format(tool=tool, call=CALLS[tool]), str(path), str(target)]
    try:
        failed = subprocess.run(command, capture_output=True, timeout=time_limit_s).returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    return "fails" if failed or not target.exists() else str(len(onnx.load(target).graph.node))
