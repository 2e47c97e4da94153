"""`python -m eightfold.export.simplify._simplify_child TOOL SECONDS`: runs one simplifier in processes of its own.

It loads, then reads requests, a line of JSON each: the paths of a lean graph and of its result. Each is answered by a
fork, which may crash or hang without harm, and with a line of JSON: exit code (that of a signal below zero) and what
was written to stderr. Code 0 means that the result is there."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

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


def main(tool: str, idle_s: str) -> None:
    """Answer requests until their pipe is closed, or none has come for `idle_s` seconds."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the tools print
    simplified = _simplifier(tool)
    requests = os.fdopen(0, "rb", buffering=0)
    while select.select([requests], [], [], float(idle_s))[0] and (line := requests.readline()):
        source, target = map(Path, json.loads(line))
        replies.write(json.dumps(_forked(lambda: _simplify(tool, simplified, source, target), requests)) + "\n")  # noqa: B023
        replies.flush()


def _forked(work: Callable[[], None], requests: IO[bytes]) -> tuple[int, str]:
    """Exit code and stderr of a fork that does `work`. It is killed when `requests` end: who asked is gone."""
    alive, held = os.pipe()  # closed for good when the fork ends
    with tempfile.TemporaryFile("w+") as stderr:
        child = os.fork()
        if not child:
            os.dup2(stderr.fileno(), 2)
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)  # taking the tool's graphs apart, object by object, would take longer than the result
        os.close(held)
        if (
            requests.fileno() in select.select([alive, requests.fileno()], [], [])[0]
        ):  # nothing but the end: one request at a time
            os.kill(child, signal.SIGKILL)
        os.close(alive)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        stderr.seek(0)
        return code, stderr.read()


def _simplify(tool: str, simplified: Callable[[Any], Any], source: Path, target: Path) -> None:
    all_seen = tool != "onnxsim" and bytes_beside(source) < PROTOBUF_LIMIT_BYTES
    model, known = load_without_weights(source, hidden_bytes=sys.maxsize if all_seen else LARGEST_FOR_ONNXSIM_BYTES)
    result = simplified(model)
    restore_weights(result, known)
    write_without_weights(result, target, known)


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
