"""`python -m eightfold.export._simplify_child TOOL`: one simplifier in a process of its own, which may crash or hang
without harm. It loads, then reads the names of a graph and of its result, one a line, from its input. Exit code 0 means
that the second holds the simplified graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from eightfold.export.onnx_files import load_onnx, save_onnx
from eightfold.export.shapes import state_shapes


def main(tool: str) -> None:
    simplified = _simplifier(tool)
    source, target = (sys.stdin.readline().rstrip("\n") for _ in range(2))
    if source:  # nothing comes where the one who asked has gone
        save_onnx(simplified(load_onnx(source)), target)


def _simplifier(tool: str) -> Callable[[Any], Any]:
    # Both tools import torch where it is there, for features that are not used here; it takes most of their time.
    sys.modules["torch"] = None  # type: ignore[assignment]  # None is how Python marks a module as absent
    if tool == "onnxsim":
        import onnxsim

        return lambda model: onnxsim.simplify(model)[0]
    import onnxslim

    _infer_without_weights()
    return onnxslim.slim  # type: ignore[no-any-return]  # it has no types


def _infer_without_weights() -> None:
    """onnxslim infers shapes again and again, and each time onnx copies every weight in and out: half of its time."""
    from onnx import shape_inference

    copying = shape_inference.infer_shapes

    def infer_shapes(model: Any, *_: Any, **__: Any) -> Any:
        if isinstance(model, bytes):
            return copying(model)
        state_shapes(model, infer=copying)
        return model

    shape_inference.infer_shapes = infer_shapes


if __name__ == "__main__":
    main(*sys.argv[1:])
