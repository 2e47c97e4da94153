"""`python -m eightfold.export.simplify._simplify_child TOOL`: runs one simplifier in a process of its own.

The process may crash or hang without harm. It loads, then reads the names of a lean graph and of its result from its
input, one a line. Exit code 0 means that the second holds the simplified graph."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eightfold.onnx_graph.external_weights import (
    bytes_beside,
    load_without_weights,
    restore_weights,
    write_without_weights,
)
from eightfold.onnx_graph.onnx_files import PROTOBUF_LIMIT_BYTES
from eightfold.onnx_graph.shape_inference import state_shapes

# onnxsim serializes a graph with its weights several times. It can do without the large ones: what it would do with
# their values, onnxslim and our own passes do as well.
LARGEST_FOR_ONNXSIM_BYTES = 2**16


def main(tool: str) -> None:
    """Run one simplifier on the file named on standard input, in this process."""
    simplified = _simplifier(tool)
    source, target = (Path(sys.stdin.readline().rstrip("\n")) for _ in range(2))
    if not source.is_file():  # nothing comes where the one who asked has gone
        return
    all_seen = tool != "onnxsim" and bytes_beside(source) < PROTOBUF_LIMIT_BYTES
    model, known = load_without_weights(source, hidden_bytes=sys.maxsize if all_seen else LARGEST_FOR_ONNXSIM_BYTES)
    result = simplified(model)
    restore_weights(result, known)
    write_without_weights(result, target, known)
    sys.stderr.flush()
    os._exit(0)  # taking the tool's graphs apart, object by object, would take longer than writing the result


def _simplifier(tool: str) -> Callable[[Any], Any]:
    # Both import torch, onnxsim sympy, where they are there, for what is not used here; it takes most of their time.
    for name in ("torch", "sympy") if tool == "onnxsim" else ("torch",):
        sys.modules[name] = None  # type: ignore[assignment]  # None is how Python marks a module as absent
    if tool == "onnxsim":
        import onnxsim

        return lambda model: onnxsim.simplify(model)[0]
    import onnxslim

    if core := getattr(onnxslim, "core", None):
        core.shape_infer = _shape_infer
    return onnxslim.slim  # type: ignore[no-any-return]  # it has no types


def _shape_infer(model: Any) -> Any:
    """onnxslim infers shapes again and again. Where its own inference fails, it falls back on onnx's, with every weight
    copied in and out: half of its time."""
    state_shapes(model)
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
