"""Measuring over ssh, against a real sshd on the loopback interface."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eightfold.errors import BackendError, UsageError
from eightfold.runtime.bench import bench
from eightfold.runtime.ssh import Address, Board

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
needs_sshd = pytest.mark.skipif(
    not (SSHD and shutil.which("ssh") and shutil.which("ssh-keygen")), reason="needs the OpenSSH server and client"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An sshd of our own, and EIGHTFOLD_SSH set so that it is trusted."""
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    host_key, user_key = make_key(folder / "host"), make_key(folder / "user")
    shutil.copy(f"{user_key}.pub", folder / "authorized")
    number = free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
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
        wait_for(number)
        yield number
    finally:
        patch.undo()
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("sshd did not start")


@needs_sshd
def test_the_table_comes_back_and_nothing_stays(
    port: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    remote = tmp_path / "board tmp"
    remote.mkdir()
    monkeypatch.setattr("eightfold.runtime.ssh.MAKE_FOLDER", f"mktemp -d -p '{remote}'")
    table = bench(
        bundle_path,
        batches=[1, 4],
        backends=["onnxruntime"],
        seconds=0.02,
        threads=1,
        baseline="pruned-fp32",
        device=f"ssh://127.0.0.1:{port}",
    )
    assert [(row.name, row.batch, row.threads) for row in table.rows] == [("pruned-fp32", 1, 1), ("pruned-fp32", 4, 1)]
    assert list(remote.iterdir()) == []


@needs_sshd
def test_what_the_board_says_is_passed_on(port: int, bundle_path: Path) -> None:
    with pytest.raises(BackendError, match=r"127\.0\.0\.1 answered: eightfold: batch 3 is not in it; allowed: 1, 4"):
        bench(bundle_path, batches=[3], device=f"ssh://127.0.0.1:{port}")


@needs_sshd
def test_a_board_without_eightfold(port: int, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.remote.PROGRAM", "eightfold-that-is-not-there")
    with pytest.raises(BackendError, match=r"has no eightfold on its PATH; there, run: pip install 'eightfold\[cpu\]'"):
        bench(bundle_path, device=f"ssh://127.0.0.1:{port}")


@needs_sshd
def test_files_and_folders_arrive_whole(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "data").write_bytes(bytes(range(256)) * 5000)
    with Board(Address.parse(f"ssh://127.0.0.1:{port}")) as board:
        there = board.upload(folder)
        assert board.output(f"cat '{there}/inside/data' | wc -c") == str(256 * 5000)
        place = board.folder
    assert not Path(place).exists()


@needs_sshd
def test_a_board_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    monkeypatch.setenv("EIGHTFOLD_SSH", "ssh -F none -o BatchMode=yes")
    with pytest.raises(BackendError, match=r"cannot reach 127\.0\.0\.1 .*check that this works: ssh 127\.0\.0\.1"):
        bench(bundle_path, device=f"ssh://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ssh://board", Address("board")),
        ("ssh://nvidia@10.0.0.5:2222/", Address("10.0.0.5", "nvidia", 2222)),
        ("ssh://me@[fe80::1]", Address("fe80::1", "me")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert Address.parse(url) == address


@pytest.mark.parametrize("url", ["board", "ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://a@b@c", "http://a"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: ssh://\[user@\]host\[:port\]"):
        Address.parse(url)


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing at"):
        bench(tmp_path / "none", device="ssh://board")
