"""A board behind ssh, through the system's own `ssh` program: its keys, its configuration, its agent.

`EIGHTFOLD_SSH` replaces the program, as GIT_SSH_COMMAND does for git: "ssh -F my_config". All commands share one
connection, so that a password is asked for once.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from eightfold.errors import BackendError, UsageError

CONNECT_TIMEOUT_S = 15
MAKE_FOLDER = "mktemp -d"
UNREACHABLE = 255  # ssh's own exit code, as opposed to the command's


@dataclass(frozen=True)
class Address:
    """Address of a board.

    >>> Address.parse("ssh://nvidia@192.168.1.5:2222")
    Address(host='192.168.1.5', user='nvidia', port=2222)
    """

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in a URL `ssh://[user@]host[:port]`. Raises UsageError."""
        # A host may not begin with '-', or ssh would take it for an option.
        found = re.fullmatch(r"ssh://(?:([\w.][\w.-]*)@)?(\[[0-9a-fA-F:]+\]|[\w.][\w.-]*)(?::(\d+))?/?", url)
        if not found:
            raise UsageError(
                f"device {url!r}", allowed="ssh://[user@]host[:port]", remedy="e.g. ssh://nvidia@jetson.local"
            )
        return cls(found[2].strip("[]"), found[1], int(found[3]) if found[3] else None)

    @property
    def arguments(self) -> list[str]:
        """Arguments of `ssh` that name the board."""
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*port, "--", self.host if self.user is None else f"{self.user}@{self.host}"]


class Board:
    """A connection, and a folder on the board that is removed at the end."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._control = tempfile.TemporaryDirectory(prefix="eightfold-ssh-")
        self.folder = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Board:
        try:
            self.folder = self.output(MAKE_FOLDER)
        except BaseException:
            self._control.cleanup()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Whatever happened, what happened matters more than leftovers.
        self._run(shlex.join(["rm", "-rf", self.folder]), check=False)
        subprocess.run([*self._ssh(), "-O", "exit", *self._address.arguments], capture_output=True, check=False)
        self._control.cleanup()

    def output(self, command: str) -> str:
        """Standard output of a shell command.

        Raises BackendError with the last line that the command, or ssh, said.
        """
        return self._run(command).stdout.decode(errors="replace").strip()

    def watch(self, command: str) -> None:
        """Run a shell command whose messages appear here as it speaks. Raises as `output`."""
        said: list[bytes] = []
        words = [*self._ssh(), *self._address.arguments, _whole(f"{command} > /dev/null")]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            for line in process.stderr or ():
                said.append(line)
                print(line.decode(errors="replace"), end="", file=sys.stderr, flush=True)
        if process.returncode:
            raise self._failed(process.returncode, b"".join(said))

    def lines(self, command: str) -> Iterator[str]:
        """Lines that a shell command prints, as it prints them. Raises as `output` at the end."""
        words = [*self._ssh(), *self._address.arguments, _whole(command)]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
            self._process = process
            try:
                for line in process.stdout or ():
                    if line.endswith(b"\n"):  # the last one may be torn where the connection broke
                        yield line.decode(errors="replace").rstrip("\n")
            finally:
                self._process = None
                if process.stdout is not None:
                    process.stdout.close()
                process.wait()
            if process.returncode:
                said.seek(0)
                raise self._failed(process.returncode, said.read())

    def interrupt(self) -> None:
        """End the command whose lines are being read. For another thread."""
        process = self._process
        if process is not None:
            process.terminate()

    def upload(self, path: Path) -> str:
        """Copy a file or a directory into the folder; returns its path there."""
        # As a tar stream: boards have tar, and not all have an sftp server.
        with tempfile.TemporaryFile() as spool:
            with tarfile.open(fileobj=spool, mode="w") as archive:
                archive.add(path, arcname=path.name)
            spool.seek(0)
            self._run(shlex.join(["tar", "-x", "-f", "-", "-C", self.folder]), stdin=spool)
        return f"{self.folder}/{path.name}"

    def _run(
        self, command: str, *, stdin: IO[bytes] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        words = [*self._ssh(), *self._address.arguments, _whole(command)]
        done = subprocess.run(words, stdin=stdin or subprocess.DEVNULL, capture_output=True, check=False)
        if check and done.returncode:
            raise self._failed(done.returncode, done.stderr)
        return done

    def _ssh(self) -> list[str]:
        program = shlex.split(os.environ.get("EIGHTFOLD_SSH", "ssh"))
        shared = {"ControlMaster": "auto", "ControlPath": f"{self._control.name}/%C", "ControlPersist": "60"}
        alive = {"ServerAliveInterval": str(CONNECT_TIMEOUT_S), "ServerAliveCountMax": "4"}
        options = shared | alive | {"ConnectTimeout": str(CONNECT_TIMEOUT_S)}
        return [*program, *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]

    def _failed(self, code: int, said: bytes) -> BackendError:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        reason = _killed(code) or (lines[-1] if lines else f"exit code {code}")
        host = self._address.host
        if code == UNREACHABLE:
            return BackendError(f"cannot reach {host} ({reason})", remedy=f"check that this works: ssh {host}")
        return BackendError(f"{host} answered: {reason}")


def _whole(command: str) -> str:
    """A command whose shell outlives it: of one that a signal killed, ssh tells no more than of a broken connection."""
    return f"{command}; exit $?"


def _killed(code: int) -> str:
    """Words for the exit code of a program that a signal killed, to which a shell adds 128; nothing for others."""
    try:
        return f"the program was killed by {signal.Signals(code - 128).name}" if code != UNREACHABLE else ""
    except ValueError:
        return ""
