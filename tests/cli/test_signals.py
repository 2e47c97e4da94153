"""Ending a command from outside: nothing that is unfinished stays, and what was there before does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eightfold.cli.signals import exit_on_signals
from tests.export.networks import small_net

# Waits where a build has its float16 graph in a scratch folder.
PROGRAM = """
import sys, time
from eightfold.cli.app import main
from eightfold.export.tensorrt import engine_from_onnx

def wait(*_, **__):
    print("waiting", flush=True)
    time.sleep(600)

engine_from_onnx._build = wait
sys.argv = ["eightfold", "build", "net.onnx", "-o", "net.engine"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_build_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int, said: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from eightfold.export.torch.onnx_export import export_onnx

    export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    (tmp_path / "net.engine").write_bytes(b"old")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert list(scratch.glob("eightfold-*"))
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (code, f"eightfold: {said}\n")
    assert list(scratch.glob("eightfold-*")) == []
    assert sorted(each.name for each in tmp_path.iterdir()) == ["net.engine", "net.onnx", "scratch"]
    assert (tmp_path / "net.engine").read_bytes() == b"old"


def test_the_second_signal_ends_the_process_at_once_and_handlers_come_back() -> None:
    with exit_on_signals():
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        with pytest.raises(SystemExit) as caught:
            handler(signal.SIGTERM, None)
        assert caught.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_other_threads_cannot_handle_signals() -> None:
    done = []

    def work() -> None:
        with exit_on_signals():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
