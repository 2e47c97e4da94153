"""`eightfold compress` that is stopped, and goes on when it is repeated."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from eightfold.cli.pipeline.compress import compress

# Of so small a network INT8 is slower, which is no fault of it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.int8_speed.SlowInt8Warning"),
    pytest.mark.filterwarnings("ignore::eightfold.export.int8.quantize.LossyInt8Warning"),
]

# Waits where the network is calibrated: pruned and exported it is by then.
STOPPED = """
import sys, time
from eightfold.cli.app import main
from eightfold.pipeline.steps import int8

def wait(*_, **__):
    print("waiting", flush=True)
    time.sleep(600)

int8.calibrate_pruned = wait
sys.argv = ["eightfold", "compress", "net.onnx", "--images", "photos", "-o", "stopped", "--minutes", "0",
            "--max-drop", "100", "--seconds", "0.01", "--force"]
sys.exit(main())
"""


def stopped_by(python: str, number: signal.Signals, folder: Path) -> tuple[int, str]:
    """Start the command, end it by a signal while it calibrates; exit code and the last line of its errors."""
    command, pipe = [python, "-c", STOPPED], subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert any(line == "waiting\n" for line in process.stdout)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    return process.returncode, errors.splitlines()[-1] if errors else ""


def test_a_command_that_is_stopped_goes_on_when_it_is_repeated(
    compressed: Path,
    compress_inputs: Path,
    warm_python: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By Ctrl-C; then the repeated command is killed at the same place, and goes on to the end at last."""
    code, said = stopped_by(warm_python, signal.SIGINT, compress_inputs)
    assert (code, said) == (130, "eightfold: interrupted; run the same command again to go on")
    code, _ = stopped_by(warm_python, signal.SIGKILL, compress_inputs)
    assert code == -signal.SIGKILL
    monkeypatch.chdir(compress_inputs)
    compress("net.onnx", "photos", Path("stopped"), minutes=0, max_drop=100, force=True, seconds=0.01)
    told = capsys.readouterr().out
    assert "prune: up to date" in told
    assert "export pruned: up to date" in told
    graph = "bundle/onnx/pruned-fp32-b1.onnx"
    assert (compress_inputs / "stopped" / graph).read_bytes() == (compressed / graph).read_bytes()
