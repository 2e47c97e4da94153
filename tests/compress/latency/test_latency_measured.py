"""A profile and plans on this machine, from end to end, on a network of two layers. No time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.cli.app import main
from eightfold.compress.latency import case, whole_network
from eightfold.compress.latency.report import LatencyReport
from eightfold.errors import BackendError, UsageError
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.profile import profile_layers, time_layers

INPUT = torch.zeros(1, 3, 8, 8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = Schedule(seconds=0.002, rounds=1, block_s=0.002, warmup_s=0.001)
    monkeypatch.setattr(time_layers, "SCHEDULE", brief)
    monkeypatch.setattr(profile_layers, "STEP_WIDTHS", (64, 72, 80))
    monkeypatch.setattr(profile_layers, "STEP_REPEATS", 1)
    monkeypatch.setattr(whole_network.WholeNetwork, "schedule", brief)
    monkeypatch.setattr(case, "FRONT", (0.9,))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)).eval()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile") / "points.jsonl"


def profiled(cache: Path) -> Path:
    found = ef.profile(network(), example_inputs=INPUT, precision="int8", threads=1, cache=cache)
    assert len(found.layers) == 2
    assert "conv-b1-8x8-k3x3-p1x1-relu" in found.describe()
    return cache


def test_a_module_is_profiled_planned_and_measured(cache: Path) -> None:
    done = ef.prune(network(), INPUT, latency="1000ms", precision="int8", threads=1, profile=profiled(cache))
    assert done.latency is not None
    assert done.latency.measured_ms is not None
    assert done.latency.measured_ms > 0
    assert done.plan.kept == {}  # all of it is fast enough
    with pytest.raises(BackendError, match=r"was measured with threads 1.*eightfold profile MODEL"):
        ef.plan_pruning(network(), INPUT, latency="0.5x", precision="int8", threads=2, profile=cache)


def test_a_file_is_profiled_pruned_and_measured(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["eightfold", *map(str, words)])
        return main()

    file = ef.export_onnx(network(), tmp_path / "net.onnx", batch=1, image_size=8)
    common = ["--precision", "int8", "--threads", "1"]
    assert run("profile", file, *common, "-o", cache) == 0
    assert "channel multiple" in capsys.readouterr().out
    words = ["prune", file, "--latency", "1000ms", *common, "--profile", cache, "-o"]
    assert run(*words, tmp_path / "small.onnx") == 0
    report = LatencyReport.load(tmp_path / "small.latency.json")
    assert report.measured_ms is not None
    assert run(*words, tmp_path / "other.onnx", "--batch", "4") == 2
    assert "a latency budget at batch 4" in capsys.readouterr().err


def test_networks_of_other_inputs_are_sent_to_onnx(cache: Path) -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)
            self.head = nn.Conv2d(16, 4, 1)

        def forward(self, *, image: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.conv(image))
            return found

    with pytest.raises(UsageError, match="export the network to ONNX"):
        ef.plan_pruning(
            Keyword().eval(), {"image": INPUT}, latency="0.5x", precision="int8", threads=1, profile=profiled(cache)
        )
