"""onnxsim and onnxslim, each in processes of its own with a time limit: both have crashed or hung on some network."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

# Without a graph for so long a process ends: its memory is worth more than the second that loading takes.
IDLE_S = 60.0


class Simplifier:
    """A process that has loaded one tool, or does so, and forks for each graph."""

    def __init__(self, tool: str) -> None:
        self.tool = tool
        self._launch()

    def _launch(self) -> None:
        command = [sys.executable, "-m", "eightfold.export.simplify._simplify_child", self.tool, str(IDLE_S)]
        pipe = subprocess.PIPE
        # A pipe that nobody reads would fill up and stop it.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by `close`
        # A session of its own, so that its fork ends with it.
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._stderr, text=True, start_new_session=True
        )
        self._busy = False

    @classmethod
    @contextlib.contextmanager
    def started(cls, tool: str) -> Iterator[Simplifier]:
        """A simplifier that has waited for the next graph, or a new one, which loads from now on."""
        found = _waiting_one(tool) or cls(tool)
        try:
            yield found
        finally:
            if found.usable():
                with _lock:
                    _waiting.append(found)
            else:
                found.close()

    def usable(self) -> bool:
        """True if it takes the next graph: the process lives, and has nothing to do."""
        return not self._busy and self._process.poll() is None

    def run(self, source: Path, target: Path, time_limit_s: float) -> str:
        """Make the lean graph `target` of `source`, in one folder. "" on success, else what went wrong, in words."""
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        self._busy = True
        with contextlib.suppress(BrokenPipeError):
            requests.write(json.dumps([str(source.resolve()), str(target.resolve())]) + "\n")
            requests.flush()
        if not select.select([replies], [], [], time_limit_s)[0]:
            return "stopped at the time limit"  # it stays busy, and is ended
        reply = replies.readline()
        self._busy = False
        if not reply and not self._process.wait():  # nobody had needed it for long
            self.close()
            self._launch()
            return self.run(source, target, time_limit_s)
        code, stderr = json.loads(reply) if reply else (self._process.returncode, self._words())
        if code < 0:
            return f"crashed (signal {-code})"
        return f"failed ({(stderr.strip().splitlines() or ['no message'])[-1][:200]})" if code else ""

    def close(self) -> None:
        """End the process and its fork."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError), self._process, self._stderr:
            pass

    def _words(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()


# Loading a tool takes longer than most graphs: a process that is done waits for the next one.
_waiting: list[Simplifier] = []
_lock = threading.Lock()


def _waiting_one(tool: str) -> Simplifier | None:
    with _lock:
        for found in [found for found in _waiting if found.tool == tool]:
            _waiting.remove(found)
            if found.usable():
                return found
            found.close()
    return None


def close_waiting() -> None:
    """End the processes that wait for a graph. The next graph starts others."""
    with _lock:
        while _waiting:
            _waiting.pop().close()


atexit.register(close_waiting)
os.register_at_fork(after_in_child=_waiting.clear)  # a fork must not talk to the same tools
