"""`--nproc`: two processes train as one does; one that is killed ends the command in one line, which repeats."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from eightfold.cli.train.options import TrainingArguments
from eightfold.cli.train.train import train
from eightfold.compress.train.processes import Processes, lost_a_peer
from eightfold.errors import UsageError
from tests.cli.pictures import write_dark_and_bright

pytestmark = pytest.mark.filterwarnings("ignore:.* imports your code")  # the network is code of the test

# Without batch norms, which see half a batch in each process. The second of two processes dies in its 20th step.
NETWORK = """
import os, signal
from pathlib import Path
from torch import nn

class Small(nn.Sequential):
    steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps == 20 and os.environ.get("RANK") == "1" and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def small(num_classes=2):
    return Small(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "networks_that_die.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_dark_and_bright(tmp_path / "data", train=16)
    return tmp_path


def command(python: str, output: str) -> subprocess.CompletedProcess[str]:
    words = ["train", "networks_that_die:small", "--data", "data", "--epochs", "8", "--batch", "8", "--size", "16"]
    return subprocess.run(
        [python, "-W", "ignore", "-m", "eightfold", *words, "--rate", "0.1", "--nproc", "2", "-o", output],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_process_that_dies_is_one_line_and_the_command_goes_on(folder: Path, warm_python: str) -> None:
    died = command(warm_python, "two")
    assert died.returncode == 1
    (line,) = (line for line in died.stderr.splitlines() if line.startswith("eightfold: ") and "warning" not in line)
    assert line.startswith("eightfold: process 2 of 2 was ended by SIGKILL; run the same command again to go on")
    assert "Traceback" not in died.stderr
    assert not Path("two").exists()
    again = command(warm_python, "two")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("wrote two") == 1
    train("networks_that_die:small", "data", Path("one"), epochs=8, rate=0.1, batch=8, size="16")
    one, two = (load_file(f"{name}/weights.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-4, atol=1e-6)


def test_devices_and_their_number_fit() -> None:
    def asked(devices: str, nproc: int | None = None) -> TrainingArguments:
        return TrainingArguments(network="n", data="d", epochs=1, rate=0.1, devices=devices, nproc=nproc)

    assert (asked("cpu", 2).device, asked("cpu", 2).processes) == ("cpu", Processes(2))
    assert (asked("1,3").device, asked("1,3").processes) == ("cuda", Processes(2, (1, 3)))
    with pytest.raises(UsageError, match="3 processes on the GPUs 0, 1; allowed: a GPU for each"):
        _ = asked("0,1", 3).processes
    with pytest.raises(UsageError, match="--devices gpu; allowed: cpu, cuda, auto, or numbers"):
        _ = asked("gpu").processes
    with pytest.raises(UsageError, match="--nproc 4 with --batch 2; allowed: an image for each process"):
        train("n", "d", Path("out"), nproc=4, batch=2)


def test_only_errors_of_distributed_training_mean_a_lost_peer() -> None:
    assert lost_a_peer(RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not lost_a_peer(RuntimeError("shapes differ"))
    assert not lost_a_peer(ValueError("gloo"))
