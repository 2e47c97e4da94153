"""A profile and plans on this machine, from end to end, on a network of two layers. No time is asserted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.cli.app import main
from eightfold.compress.latency import case, whole_network
from eightfold.compress.latency.damage import damage_of, int8_damage
from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.latency.report import LatencyReport
from eightfold.errors import BackendError, UsageError
from eightfold.export.int8.float_layers import labels_at, weighted_labels
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.profile import profile_layers, time_layers
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.settings import ProfileSettings, settings_for

INPUT = torch.zeros(1, 3, 8, 8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    brief = Schedule(seconds=0.002, rounds=1, block_s=0.002, warmup_s=0.001)
    monkeypatch.setattr(time_layers, "SCHEDULE", brief)
    monkeypatch.setattr(profile_layers, "STEP_WIDTHS", (64, 72, 80))
    monkeypatch.setattr(profile_layers, "STEP_REPEATS", 1)
    monkeypatch.setattr(whole_network, "SCHEDULE", brief)
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


def mixed_network() -> nn.Sequential:
    """Its second layer reads channels of very different sizes, which one INT8 scale cannot hold."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)).eval()
    with torch.no_grad():
        for layer, factor in ((net[0], 3000.0), (net[2], 1 / 3000.0)):
            assert isinstance(layer, nn.Conv2d)
            part = layer.weight[:1] if factor > 1 else layer.weight[:, :1]
            part.mul_(factor)
    return net


def test_the_damage_of_int8_is_worst_where_one_scale_does_not_do() -> None:
    net, images = mixed_network(), torch.rand(4, 3, 8, 8)
    graph = ef.trace(net, INPUT)
    layers = network_layers(net, INPUT, graph)
    network = whole_network.WholeNetwork(net, INPUT, graph, settings_for(cpu_target(), "fp32", 1))
    damage = int8_damage(network, layers, [(images,)])
    assert damage.places == {"0.weight": 0, "2.weight": 1, "4.weight": 2}
    assert damage.values["2.weight"] == min(damage.values.values())
    assert all(value <= 0 for value in damage.values.values())
    # The oracle: values of the middle layer's input rounded to the one scale that holds the largest.
    with torch.no_grad():
        seen = net[1](net[0](images))
        scale = seen.max() / 255
        error = net[4](net[3](net[2]((seen / scale).round() * scale))) - net(images)
        db = 10 * torch.log10(net(images).square().sum() / error.square().sum())
    assert damage.values["2.weight"] == pytest.approx(damage_of(float(db)), rel=0.5)


def test_precisions_are_chosen_measured_and_kept_by_quantize(tmp_path: Path) -> None:
    def timer(points: Sequence[Point], settings: ProfileSettings) -> tuple[list[float], float]:
        return [(1 if settings.precision == "int8" else 2) * 1e-4 * outputs for _, _, outputs in points], 1.0

    images, files = torch.rand(4, 3, 8, 8), {each: tmp_path / f"{each}.jsonl" for each in ("fp32", "int8")}
    for precision, file in files.items():
        common = {"example_inputs": INPUT, "precision": precision, "threads": 1}
        ef.profile(mixed_network(), **common, cache=file, timer=timer)
    profiles = ",".join(map(str, files.values()))
    options = {"precision": "mixed", "threads": 1, "profile": profiles, "images": images}
    done = ef.prune(mixed_network(), INPUT, latency="1000ms", **options)
    report = done.latency
    assert report is not None
    assert report.measured_ms is not None
    assert report.weighted_layers == 3
    assert set(report.keep_float) == {"0.weight", "2.weight", "4.weight"}  # there is time for all of them
    assert "layers that stay in float, of 3" in report.describe()
    file = ef.export_onnx(mixed_network(), tmp_path / "net.onnx", batch=1, image_size=8)
    kept = labels_at(file, report.float_places[1:2], report.weighted_layers)
    assert [label for label, float_ in zip(weighted_labels(file), (False, True, False), strict=True) if float_] == kept
    with pytest.raises(UsageError, match=r"has 3 layers with weights, and precisions were chosen for 4"):
        labels_at(file, (0,), 4)


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
