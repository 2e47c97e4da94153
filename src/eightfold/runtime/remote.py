"""Measuring on a board: the bundle goes there, `eightfold bench` runs there, the table comes back."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from eightfold.errors import BackendError, UsageError
from eightfold.files import PathLike
from eightfold.runtime.latency import LatencyTable
from eightfold.runtime.ssh import Address, Board

PROGRAM = "eightfold"


def bench_on(
    device: str,
    bundle_or_model: PathLike,
    *,
    batches: Sequence[int] | None = None,
    backends: Sequence[str] | None = None,
    seconds: float = 4.0,
    threads: int | None = None,
    baseline: str | None = None,
    end_to_end: bool = False,
) -> LatencyTable:
    """`ef.bench` on another machine.

    Args:
        device: "ssh://[user@]host[:port]". eightfold is installed there and on the PATH of a login-less shell.
        bundle_or_model: path of a bundle or a fixed-size `.onnx` file on this machine.
        batches, backends, seconds, threads, baseline, end_to_end: as in `ef.bench`.

    Raises BackendError with what ssh or the board said. Nothing stays on the board.
    """
    path = Path(bundle_or_model).resolve()
    if not path.exists():
        raise UsageError(f"there is nothing at {str(bundle_or_model)!r}", allowed="a bundle or a fixed-size .onnx file")
    with Board(Address.parse(device)) as board:
        program = _program(board, device)
        there = board.upload(path)
        result = f"{board.folder}/latency.json"
        words = [program, "bench", there, "--output", result, "--seconds", str(seconds)]
        words += _options("--batch", batches) + _options("--backend", backends)
        words += _options("--threads", None if threads is None else [threads])
        words += _options("--baseline", None if baseline is None else [baseline])
        words += ["--end-to-end"] if end_to_end else []
        board.watch(shlex.join(words))
        text = board.output(f"cat {shlex.quote(result)}")
    return LatencyTable.from_json(text, source=f"the table from {device}")


def _program(board: Board, device: str) -> str:
    try:
        return board.output(f"command -v {PROGRAM}")
    except BackendError as error:
        if "cannot reach" in str(error):
            raise
        raise BackendError(
            f"{device} has no eightfold on its PATH", remedy="there, run: pip install 'eightfold[cpu]'"
        ) from None


def _options(name: str, values: Sequence[object] | None) -> list[str]:
    return [word for value in values or () for word in (name, str(value))]
