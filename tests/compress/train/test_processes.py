"""Two processes under gloo train as one does, with a penalty, a teacher and accumulation; a run that SIGKILL ends
goes on as if it had not."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eightfold.compress.train.log import read_log

SCRIPT = """
import sys
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.distill.distiller import Distiller, DistillOptions
from eightfold.compress.train.distill.hook import Distill
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions
from eightfold.compress.train.sparsity.hook import Sparsity
from eightfold.compress.train.sparsity.penalties import ScalePenalty
from eightfold.compress.train.sparsity.scales import batch_norm_scales
from eightfold.compress.train.sparsity.strength import Strength

torch.set_num_threads(1)

def network(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(4 * width, 3),
    )

def batch_at(number):
    generator = torch.Generator().manual_seed(number)
    images = torch.rand(8, 3, 6, 6, generator=generator)
    return Batch((images,), torch.randint(3, (8,), generator=generator))

torch.manual_seed(0)
teacher, model = network(8), network(4)
model.eval()
options = DistillOptions({"logits": 1.0, "cwd": 1.0}, {"2": "2"})
hooks = [
    Sparsity(ScalePenalty(batch_norm_scales(model), Strength(1e-2))),
    Distill(Distiller(model, teacher, torch.rand(1, 3, 6, 6), options)),
]
devices = Devices("cpu", "off")
# In evaluation mode: batch norms see half a batch in each process.
settings = LoopOptions(steps=4, accumulate=2, training_mode=False)
done = fit(
    model, batch_at, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), settings, loss=cross_entropy, hooks=hooks,
    devices=devices,
)
assert devices.processes == int(sys.argv[2])
if devices.is_main:
    torch.save({"weights": model.state_dict(), "losses": [row["loss"] for row in done.rows]}, sys.argv[1])
"""


def test_two_processes_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "1.pt"), "1"])
    runpy.run_path(str(script))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = str(Path(__file__).parents[3] / "src")
    running = []
    for rank in range(2):
        ours = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        environment |= {name: str(value) for name, value in ours.items()}
        command = [warm_python, "-W", "ignore", str(script), str(tmp_path / "2.pt"), "2"]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    one, two = (torch.load(tmp_path / f"{world}.pt", weights_only=True) for world in (1, 2))
    torch.testing.assert_close(torch.tensor(two["losses"]), torch.tensor(one["losses"]))
    for name, value in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], value, msg=name)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from torch.nn.functional import mse_loss
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch, Hook
from eightfold.compress.train.log import Log
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import LoopOptions

class Kill(Hook):
    def after_step(self, run):
        if run.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

def batch_at(number):
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(number))
    return Batch((x,), x.sum(1, keepdim=True))

folder = Path(sys.argv[1])
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
options = LoopOptions(steps=12, average=0.9, save_every_s=0.0, checks=3)
done = fit(
    model, batch_at, optimizer, options, loss=mse_loss, hooks=[Kill()], check=lambda m: -float(m(torch.ones(1, 5))),
    checkpoint=folder / "state.safetensors", log=Log(folder / "log.csv"), devices=Devices("cpu", "off"),
)
torch.save(model.state_dict(), folder / "model.pt")
"""


def test_a_run_that_is_killed_has_the_same_loss_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src"), "OMP_NUM_THREADS": "1"}
    command = [warm_python, "-W", "ignore", str(script), str(tmp_path / "killed"), "7"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == -9
    assert not (tmp_path / "killed" / "model.pt").exists()
    for name in ("whole", "killed"):
        monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / name), "-1"])
        runpy.run_path(str(script))
    whole, killed = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    curves = [read_log(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    losses = [[row.get("loss") for row in curve] for curve in curves]
    assert losses[0] == losses[1]
    assert len({row["step"] for row in curves[1]}) >= 12
