"""A real sshd on the loopback interface, as a board to measure on."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="needs the OpenSSH server and client"
)


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[int]:
    """Yields its port; EIGHTFOLD_SSH is set so that it is trusted. Its PATH is ours, with `folder/bin` added."""
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "bin").mkdir()
    host_key, user_key = _make_key(folder / "host"), _make_key(folder / "user")
    shutil.copy(f"{user_key}.pub", folder / "authorized")
    path = os.pathsep.join([str(Path(sys.executable).parent), str(folder / "bin"), os.environ["PATH"]])
    config = folder / "config"
    config.write_text(
        f"ListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nSetEnv PATH={path}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    client = f"ssh -F none -i {user_key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes"
    patch = pytest.MonkeyPatch()
    patch.setenv("EIGHTFOLD_SSH", f"{client} -o LogLevel=ERROR")
    server, number = _started(config)
    try:
        yield number
    finally:
        patch.undo()
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def _started(config: Path) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(5):  # another process may take a port that was free a moment ago; sshd ends then
        number = free_port()
        command = [str(SSHD), "-D", "-f", str(config), "-p", str(number)]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        if _answers(server, number):
            return server, number
    raise OSError(f"sshd ended at once, five times; look at: {' '.join(command)}")


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until it does; False where it has ended."""
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server.poll() is None
        time.sleep(0.1)
    return False
