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
    number = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), str(folder / "bin"), os.environ["PATH"]])
    config = folder / "config"
    config.write_text(
        f"Port {number}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {folder / 'authorized'}\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nSetEnv PATH={path}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([str(SSHD), "-D", "-f", str(config)], stderr=subprocess.DEVNULL)
    client = f"ssh -F none -i {user_key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes"
    patch = pytest.MonkeyPatch()
    patch.setenv("EIGHTFOLD_SSH", f"{client} -o LogLevel=ERROR")
    try:
        _wait_for(number)
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


def _wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("sshd did not start")
