"""Imports what takes seconds once, then forks for each request; ends when all test processes have.

    python server.py ADDRESS

A fork gets the words, the environment, the folder and the standard streams of who asked. It runs the words as Python
would: options -W, then -c CODE, -m MODULE or a file. It dies with who asked.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import warnings
from typing import Any

# Not onnxruntime, which starts threads.
PRELOADED = (
    "numpy", "scipy.optimize", "onnx", "torch", "torch._dynamo", "torch.distributed", "torchvision",
    "accelerate", "safetensors.torch", "cv2", "yaml", "pydantic", "typer", "rich.console", "rich.progress", "pytest",
)  # fmt: skip
FIRST_S = 60.0  # without a test process for so long the server ends


def serve(address: str) -> dict[str, Any]:
    """Answer requests. Returns in forks alone, with what they are to run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the test processes have
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{address}")
    listening.listen(64)
    for name in PRELOADED:
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    gc.freeze()  # a search for cycles would copy all of it in each fork
    held: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([listening, *held], [], [], None if held else FIRST_S)
        if not ready:
            sys.exit()
        for link in ready:
            if link is not listening:  # a test process has ended
                held.remove(link)
                if not held:
                    sys.exit()
                continue
            link = listening.accept()[0]
            if link.recv(1, socket.MSG_PEEK) == b"h":
                link.recv(1)  # what it sends next is its end
                held.append(link)
                continue
            if not os.fork():
                for each in (listening, *held):
                    each.close()
                return _watched(link)
            link.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watched(link: socket.socket) -> dict[str, Any]:
    """Fork once more, and tell who asked how that fork ended; returns in the fork."""
    _, streams, _, _ = socket.recv_fds(link, 1, 3)
    request = json.loads(_read(link, int.from_bytes(_read(link, 8), "big")))
    process = os.fork()
    if not process:
        link.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        return dict(request)
    for stream in streams:
        os.close(stream)
    link.sendall(process.to_bytes(8, "big"))
    ended = os.pidfd_open(process)
    if link.fileno() in select.select([ended, link.fileno()], [], [])[0]:  # nothing but the end: who asked is gone
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):
        link.sendall(status.to_bytes(8, "big"))
    os._exit(0)


def _read(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += link.recv(size - len(data))
    return data


def prepare(request: dict[str, Any]) -> tuple[str, str]:
    """Make this process what a new one would be; the kind of what is to run, and that."""
    import numpy as np

    np.random.seed()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    sys.executable, *words = request["words"]
    while words[0] == "-W":
        assert words[1] == "ignore"
        warnings.simplefilter("ignore")
        words = words[2:]
    kind, words = (words[0], words[1:]) if words[0] in ("-c", "-m") else ("", words)
    sys.argv = ["-c", *words[1:]] if kind == "-c" else words
    first = os.path.dirname(os.path.abspath(words[0])) if not kind else "" if kind == "-c" else os.getcwd()  # noqa: PTH100, PTH109, PTH120
    own = os.environ.get("PYTHONPATH", "")
    sys.path[:] = [first, *(own.split(os.pathsep) if own else ()), *sys.path[1:]]
    return kind, words[0]


def run(kind: str, what: str) -> int:
    """The exit code. Exceptions but SystemExit are left to the interpreter, as they are in any process."""
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
        else:
            runpy.run_path(what, run_name="__main__")
    except SystemExit as done:
        if isinstance(done.code, str):
            print(done.code, file=sys.stderr)
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


code = run(*prepare(serve(sys.argv[1])))
atexit._run_exitfuncs()
sys.stdout.flush()
os._exit(code)  # taking torch apart, object by object, would take longer than most of what is run
