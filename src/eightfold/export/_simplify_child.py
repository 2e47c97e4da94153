"""`python -m eightfold.export._simplify_child TOOL IN OUT`: one simplifier in a process of its own, which may crash or
hang without harm. Exit code 0 means that OUT holds the simplified graph."""

from __future__ import annotations

import sys
from pathlib import Path

from eightfold.export.onnx_files import load_onnx, save_onnx


def main(tool: str, source: str, target: str) -> None:
    model = load_onnx(source)
    if tool == "onnxsim":
        import onnxsim

        simplified, _ = onnxsim.simplify(model)
    else:
        import onnxslim

        simplified = onnxslim.slim(model)
    save_onnx(simplified, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
