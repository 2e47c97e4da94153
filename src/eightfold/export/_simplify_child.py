"""`python -m eightfold.export._simplify_child TOOL IN OUT`: one simplifier in a process of its own, which may crash or
hang without harm. Exit code 0 means that OUT holds the simplified graph."""

from __future__ import annotations

import sys
from typing import Any

from eightfold.export.onnx_files import load_onnx, save_onnx


def main(tool: str, source: str, target: str) -> None:
    save_onnx(_simplified(tool, load_onnx(source)), target)


def _simplified(tool: str, model: Any) -> Any:
    # Both tools import torch where it is there, for features that are not used here; it takes most of their time.
    sys.modules["torch"] = None  # type: ignore[assignment]  # None is how Python marks a module as absent
    if tool == "onnxsim":
        import onnxsim

        return onnxsim.simplify(model)[0]
    import onnxslim

    return onnxslim.slim(model)


if __name__ == "__main__":
    main(*sys.argv[1:])
