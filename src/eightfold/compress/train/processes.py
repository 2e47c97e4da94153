"""Starts a training command once more for each process that trains, as torchrun does on one machine, and watches them.

The processes find each other by the environment variables of torch.distributed. A process that dies ends the others,
and the caller gets one error; checkpoints are written whole, so that the same command goes on. Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from eightfold.errors import ModelError, UsageError

OURS = "EIGHTFOLD_WORKER"  # set in processes that `run_workers` started
LOST_A_PEER = 76  # exit code of a worker whose training failed because another one had gone
POLL_S, GRACE_S = 0.05, 2.0
GOING_ON = "run the same command again to go on"


class WorkerError(ModelError):
    """A process of a training died."""


@dataclass(frozen=True)
class Processes:
    """
    Attributes:
        count: how many train together.
        gpus: numbers of the GPUs that they see, one for each; none: all of them, or the CPU.
    """

    count: int = 1
    gpus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.gpus and len(self.gpus) != self.count:
            raise UsageError(
                f"{self.count} processes on the GPUs {', '.join(map(str, self.gpus))}", allowed="a GPU for each process"
            )


def is_worker() -> bool:
    """True in a process that trains together with others: ours, or one of torchrun's."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """True in the process that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def lost_a_peer(error: BaseException) -> bool:
    """True for the error by which torch.distributed says that another process has gone."""
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        name in said for name in ("gloo", "NCCL", "ProcessGroup", "TCPStore")
    )


def run_workers(command: Sequence[str], processes: Processes) -> None:
    """Run `command` in several processes until all have ended. The first one's output is shown.

    Raises:
        WorkerError: a process died, or failed where the first one said nothing about it.
        SystemExit: the first process failed and said why; with its exit code.
    """
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(processes.count)]
        running: list[subprocess.Popen[bytes]] = []
        stack.callback(_kill, running)
        port = _free_port()
        for rank in range(processes.count):
            running.append(_start(command, rank, processes, port, said[rank]))
        _wait(running)
        codes = [process.poll() for process in running]
        _kill(running)
        _raise(codes, said)


def _start(
    command: Sequence[str], rank: int, processes: Processes, port: int, said: IO[bytes]
) -> subprocess.Popen[bytes]:
    """All but the first say what they have to say to a file. All of them end when their input does."""
    return subprocess.Popen(
        command,
        env={**os.environ, **_environment(rank, processes, port)},
        stdin=subprocess.PIPE,
        stderr=None if rank == 0 else said,
    )


def _environment(rank: int, processes: Processes, port: int) -> Mapping[str, str]:
    count = processes.count
    found: dict[str, object] = {
        OURS: 1,
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // count)),
    }
    if processes.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, processes.gpus))
    return {name: str(value) for name, value in found.items()}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until all ended well, or some time after one did not: the others may have the reason."""
    while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
        time.sleep(POLL_S)
    until = time.monotonic() + GRACE_S
    while any(process.poll() is None for process in running) and time.monotonic() < until:
        time.sleep(POLL_S)


def _kill(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _raise(codes: Sequence[int | None], said: Sequence[IO[bytes]]) -> None:
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            raise WorkerError(
                f"process {rank + 1} of {len(codes)} was ended by {name}",
                remedy=f"{GOING_ON}; where memory ran out, with a smaller batch or fewer processes",
            )
    if codes[0] not in (None, 0, LOST_A_PEER):
        raise SystemExit(codes[0])
    for rank, code in enumerate(codes):
        if code not in (None, 0, LOST_A_PEER):
            raise WorkerError(f"process {rank + 1} of {len(codes)} failed: {_last_line(said[rank])}", remedy=GOING_ON)
    if any(code != 0 for code in codes):
        raise WorkerError(f"the {len(codes)} processes lost each other", remedy=GOING_ON)


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("eightfold: ") if lines else "it said nothing"


def end_with_parent() -> None:
    """In a process of `run_workers`: end when the one that started it does, however that ends."""
    if OURS in os.environ:
        threading.Thread(target=_read_to_the_end, daemon=True).start()


def _read_to_the_end() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


@contextlib.contextmanager
def quiet_beside_main() -> Iterator[None]:
    """Standard output goes nowhere in processes that are not the main one."""
    if is_main():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


def command_again() -> list[str]:
    """The command line of this process, for another one."""
    return [sys.executable, "-m", "eightfold", *sys.argv[1:]]
