"""Measuring on a board: the bundle goes there, `eightfold bench` runs there, the table comes back.

Where Python is too old for eightfold (JetPack 4 and 5), the C++ runtime's `eightfold-run` measures instead, and writes
the same table.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from eightfold.errors import BackendError, UsageError
from eightfold.files import PathLike
from eightfold.runtime.bench.candidates import FORMATS
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.modes import Mode
from eightfold.runtime.bench.ssh import Address, Board
from eightfold.runtime.bench.sweep import SWEEP, Threads
from eightfold.runtime.bundle.sizes import Size, size_text

# Names of our backends -> arguments that mean the same to eightfold-run.
NATIVE_BACKENDS = {
    "onnxruntime": ("--backend", "onnxruntime"),
    "onnxruntime-cuda": ("--backend", "onnxruntime", "--provider", "cuda"),
    "onnxruntime-tensorrt": ("--backend", "onnxruntime", "--provider", "tensorrt"),
    "tensorrt": ("--backend", "tensorrt"),
}


@dataclass(frozen=True)
class Request:
    """A measurement to make; the fields are arguments of `ef.bench`."""

    batches: Sequence[int] | None = None
    sizes: Sequence[Size] | None = None
    backends: Sequence[str] | None = None
    seconds: float = 4.0
    threads: Threads = None
    baseline: str | None = None
    end_to_end: bool = False
    mode: Mode = "latency"


def bench_on(device: str, bundle_or_model: PathLike, request: Request) -> LatencyTable:
    """`ef.bench` on another machine.

    Args:
        device: "ssh://[user@]host[:port]". `eightfold`, or else `eightfold-run`, is on the PATH of a login-less shell.
        bundle_or_model: path of a bundle or a fixed-size `.onnx` file on this machine.
        request: what `eightfold-run` cannot do raises UsageError: it measures the best network of a bundle beside its
            baseline, the model alone.

    Raises BackendError with what ssh or the board said. Nothing stays on the board.
    """
    path = Path(bundle_or_model).resolve()
    if not path.exists():
        raise UsageError(f"there is nothing at {str(bundle_or_model)!r}", allowed="a bundle or a fixed-size .onnx file")
    with Board(Address.parse(device)) as board:
        program = _program(board, device)
        there, result = f"{board.folder}/{path.name}", f"{board.folder}/latency.json"
        words = PROGRAMS[PurePosixPath(program).name](there, result, request)
        board.upload(path)
        board.watch(shlex.join([program, *words]))
        text = board.output(f"cat {shlex.quote(result)}")
    return _of_batches(LatencyTable.from_json(text, source=f"the table from {device}"), request.batches)


def _program(board: Board, device: str) -> str:
    """The path of the first of PROGRAMS that is there."""
    found = board.output(" || ".join(f"command -v {name}" for name in PROGRAMS) + " || true")
    if not found:
        raise BackendError(
            f"{device} has no {' and no '.join(PROGRAMS)} on its PATH",
            remedy="there, run: pip install 'eightfold[cpu]'; where Python is older than 3.10, install the C++ runtime",
        )
    return found


def _python_words(model: str, result: str, request: Request) -> list[str]:
    words = ["bench", model, "--output", result, "--seconds", str(request.seconds)]
    words += _options("--batch", request.batches) + _options("--backend", request.backends)
    words += _options("--size", _size_texts(request))
    words += _options("--threads", None if request.threads is None else [request.threads])
    words += _options("--baseline", None if request.baseline is None else [request.baseline])
    words += [] if request.mode == "latency" else ["--mode", request.mode]
    return words + (["--end-to-end"] if request.end_to_end else [])


def _native_words(model: str, result: str, request: Request) -> list[str]:
    """It takes one batch size or all: of several wanted, all are measured in one run, and the rest is left out then."""
    _check_native(model, request)
    words = [model, "--bench", "--json", result, "--seconds", str(request.seconds)]
    words += _options("--threads", None if request.threads is None else [request.threads])
    words += _options("--batch", request.batches if len(request.batches or ()) == 1 else None)
    words += _options("--size", _size_texts(request))
    return words + [word for name in request.backends or () for word in NATIVE_BACKENDS[name]]


def _check_native(model: str, request: Request) -> None:
    asked = {
        "--baseline": request.baseline is not None,
        f"--mode {request.mode}": request.mode != "latency",
        "--end-to-end": request.end_to_end,
        "more than one --backend": len(request.backends or ()) > 1,
        "more than one --size": len(request.sizes or ()) > 1,
        "--threads sweep": request.threads == SWEEP,
        f"--backend {'/'.join(request.backends or ())}": not NATIVE_BACKENDS.keys() >= set(request.backends or ()),
        f"{PurePosixPath(model).name}, which is no bundle": PurePosixPath(model).suffix in FORMATS,
    }
    refused = [name for name, wanted in asked.items() if wanted]
    if refused:
        raise UsageError(
            f"the board has only eightfold-run, which does not take {refused[0]}",
            allowed="a bundle; --batch, --seconds, --threads, one --size, and one --backend of "
            + ", ".join(NATIVE_BACKENDS),
        )


# In order of preference; each gives the arguments, from the paths there of what to measure and of the table to write.
PROGRAMS: dict[str, Callable[[str, str, Request], list[str]]] = {
    "eightfold": _python_words,
    "eightfold-run": _native_words,
}


def _of_batches(table: LatencyTable, batches: Sequence[int] | None) -> LatencyTable:
    if batches is None:
        return table
    rows = tuple(row for row in table.rows if row.batch in batches)
    missing = set(batches) - {row.batch for row in rows}
    if missing:
        present = sorted({row.batch for row in table.rows})
        raise UsageError(f"batch {min(missing)} is not in it", allowed=", ".join(map(str, present)))
    return table.model_copy(update={"rows": rows})


def _size_texts(request: Request) -> list[str]:
    return [size_text(size) for size in request.sizes or ()]


def _options(name: str, values: Sequence[object] | None) -> list[str]:
    return [word for value in values or () for word in (name, str(value))]
