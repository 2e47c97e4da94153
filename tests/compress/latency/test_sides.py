"""Plans under several limits, on devices of our own: two targets, weights, memory and energy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.compress.latency import case, prepare
from eightfold.compress.latency.network_layers import network_layers
from eightfold.compress.latency.report import LatencyReport
from eightfold.compress.latency.request import LatencyRequest
from eightfold.compress.latency.whole_network import WholeNetwork
from eightfold.compress.plan.latency.budget_text import Budget, LatencyBudget
from eightfold.compress.plan.latency.prices import Prices
from eightfold.compress.plan.latency.widths import NetworkLayer, widest
from eightfold.errors import BackendError, UsageError
from eightfold.runtime.bench.energy import PowerMeter
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.settings import ProfilePrecision, ProfileSettings
from eightfold.runtime.bench.profile.store import ProfileStore

INPUT = torch.zeros(1, 3, 32, 32)
Counts = Mapping[str, Mapping[str, int]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64), (64, 96)):
        blocks += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)).eval()


def settings(target: str, precision: ProfilePrecision = "fp32") -> ProfileSettings:
    return ProfileSettings(
        target=target, backend="b", backend_version="1", precision=precision, threads=1, device="a CPU"
    )  # fmt: skip


def layer_time(point: Point, target: str) -> float:
    """Multiply-accumulates on one device, and the input channels alone on the other."""
    shape, inputs, outputs = point
    if target == "openvino":
        return 0.02 + 1e-3 * inputs * shape.two_sided
    return 0.01 + shape.macs(inputs if shape.two_sided else outputs, outputs) * 1e-7


def network_sum(self: WholeNetwork, kept: Mapping[str, int], time: Callable[[Point], float]) -> float:
    layers = network_layers(self.model, self.example_inputs, self.graph)
    return Prices(layers, lambda shape, i, o: time((shape, round(i), round(o)))).network_ms(kept)


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices whose latency, memory and energy are known for every width."""

    def profile(layers: tuple[NetworkLayer, ...], request: LatencyRequest) -> LayerProfile:
        where = settings(request.target_name, "fp32" if request.precision == "fp32" else "int8")

        def timer(points: Sequence[Point], _: ProfileSettings) -> tuple[list[float], float]:
            return [layer_time(point, where.target) for point in points], 1.0

        return profile_layers(widest(layers), ProfileStore(where, None), timer=timer)

    def measure(self: WholeNetwork, counts: Counts) -> dict[str, float]:
        target = self.settings.target
        return {
            name: 0.05 + 1.2 * network_sum(self, kept, lambda point: layer_time(point, target))
            for name, kept in counts.items()
        }

    def memory(self: WholeNetwork, counts: Counts) -> dict[str, float]:
        def size(point: Point) -> float:
            shape, inputs, outputs = point
            values, weights = shape.values(inputs if shape.two_sided else outputs, outputs)
            return 0.3 * values * 4e-6 + 4 * weights * 1e-6

        return {name: 0.1 + network_sum(self, kept, size) for name, kept in counts.items()}

    def energy(self: WholeNetwork, counts: Counts, meter: PowerMeter) -> dict[str, float]:
        return {name: 7 * ms for name, ms in measure(self, counts).items()}

    monkeypatch.setattr(case, "FRONT", ())
    monkeypatch.setattr(prepare, "layer_profile", profile)
    monkeypatch.setattr(WholeNetwork, "measure", measure)
    monkeypatch.setattr(WholeNetwork, "memory_mb", memory)
    monkeypatch.setattr(WholeNetwork, "energy_mj", energy)


def planned(budget: str, **options: object) -> LatencyReport:
    wanted = LatencyRequest(LatencyBudget.parse(budget), **options)  # type: ignore[arg-type]
    ef.plan_pruning(network(), INPUT, latency=wanted)
    return wanted.reports[-1]


def test_each_target_stays_within_the_budget() -> None:
    alone = planned("0.6x", target="cpu-x86")
    both = planned("0.6x", target="cpu-x86,openvino")
    (side,) = both.sides
    assert side.name == "latency on openvino fp32"
    assert both.measured_ms is not None
    assert both.measured_ms <= both.budget_ms * 1.0001
    assert side.measured is not None
    assert side.measured <= 0.6 * side.whole * 1.0001
    assert both.counts != alone.counts
    assert "latency on openvino fp32: predicted" in both.describe()


def test_precisions_are_limits_of_their_own() -> None:
    report = planned("0.6x", target="cpu-x86", precision="int8,fp32")
    assert [side.name for side in report.sides] == ["latency on cpu-x86 fp32"]


def test_weights_limit_the_mean_share() -> None:
    report = planned("0.6x", target="cpu-x86,openvino", target_weights=(3.0, 1.0))
    (side,) = report.sides
    assert report.measured_ms is not None
    assert side.measured is not None
    first, second = report.measured_ms / report.whole_ms, side.measured / side.whole
    assert (3 * first + second) / 4 <= 0.6 * 1.0001
    assert max(first, second) > 0.6  # each alone need not hold
    assert side.limit is None


def test_memory_is_fitted_limited_and_measured() -> None:
    free, tight = planned("0.9x", target="cpu-x86"), planned("0.9x", target="cpu-x86", memory="0.8x")
    (side,) = tight.sides
    assert (side.name, side.unit, side.budget) == ("memory", "MB", "0.8x")
    assert side.measured is not None
    assert side.measured <= 0.8 * side.whole * 1.0001
    assert side.predicted == pytest.approx(side.measured, rel=0.03)
    assert sum(tight.counts.values()) < sum(free.counts.values())


def test_energy_is_a_limit_beside_latency() -> None:
    report = planned("0.9x", target="cpu-x86", energy="0.5x")
    (side,) = report.sides
    assert side.unit == "mJ"
    assert side.measured is not None
    assert side.measured <= 0.5 * side.whole * 1.0001
    assert report.measured_ms is not None
    assert report.measured_ms < 0.55 * report.whole_ms


def test_a_plan_is_the_same_with_a_limit_that_does_not_bind() -> None:
    assert planned("0.6x", target="cpu-x86").counts == planned("0.6x", target="cpu-x86", memory="1000GB").counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "0.001x"}, r"a budget of 0\.\d+ MB \(0.001x\) of memory is out of reach; allowed: .* MB \(0"),
        ({"memory": "much"}, "a budget of memory of 'much'; allowed: a share .* MB or GB"),
        ({"energy": "5MB"}, "a budget of energy of '5MB'; allowed: .* mJ or J"),
        ({"target_weights": (1.0, 2.0)}, "weights 1, 2 of 1 targets and precisions"),
        ({"target": "cpu-x86,openvino", "precision": "mixed"}, "mixed alone, on one target"),
        ({"precision": "mixed"}, r"no images|which is not here|images \(--images\)"),
        ({"target": "cpu-x86,abacus"}, "abacus"),
        ({"target": "tensorrt", "memory": "0.5x"}, "a budget of memory for tensorrt, which is not here"),
    ],
)
def test_bad_limits_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        planned("0.9x", **({"target": "cpu-x86"} | options))
    assert "\n" not in str(caught.value)


def test_further_budgets_need_one_of_latency() -> None:
    with pytest.raises(UsageError, match="without one of latency"):
        ef.plan_pruning(network(), INPUT, memory="0.5x")


def test_units_of_a_budget() -> None:
    assert Budget.parse("memory", "1.5 GB").limit(0) == 1500
    assert Budget.parse("energy", "2J").limit(0) == 2000
    assert Budget.parse("energy", "0.25x").limit(80) == 20


def board(root: Path, milliwatts: Mapping[str, int]) -> PowerMeter:
    """Rails as JetPack 4 shows them."""
    from eightfold.runtime.devices.device_probe import DeviceProbe

    folder = root / "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    folder.mkdir(parents=True)
    for number, (name, power) in enumerate(milliwatts.items()):
        (folder / f"rail_name_{number}").write_text(f"{name}\n")
        (folder / f"in_power{number}_input").write_text(f"{power}\n")
    ticks = iter(range(1000))
    return PowerMeter(DeviceProbe(root), seconds=10, clock=lambda: next(ticks) / 2)


def test_energy_is_power_times_time(tmp_path: Path) -> None:
    meter = board(tmp_path, {"POM_5V_IN": 4000, "POM_5V_GPU": 1500})
    assert meter.watts() == 4.0  # the input feeds the others
    calls: list[int] = []
    energy = meter.millijoules(lambda: calls.append(1))
    timed = len(calls) - 1  # the first warms up
    assert energy == pytest.approx(4.0 * (timed + 2) / 2 / timed * 1e3)


def test_rails_without_an_input_add_up(tmp_path: Path) -> None:
    assert board(tmp_path, {"VDD_GPU_SOC": 3000, "VDD_CPU_CV": 1000}).watts() == 4.0


def test_a_machine_without_rails_is_one_line(tmp_path: Path) -> None:
    from eightfold.runtime.devices.device_probe import DeviceProbe

    with pytest.raises(BackendError, match=r"no power rails can be read here; allowed: .*Jetson"):
        PowerMeter(DeviceProbe(tmp_path)).watts()


def test_a_profile_of_another_machine_prices_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # profiles come from files here
    monkeypatch.setattr(case, "FRONT", ())
    where = settings("tensorrt:10.3")
    store = ProfileStore(where, tmp_path / "board.jsonl")
    net = network()
    layers = widest(network_layers(net, INPUT, ef.trace(net, INPUT)))

    def timer(points: Sequence[Point], _: ProfileSettings) -> tuple[list[float], float]:
        return [layer_time(point, "cpu-x86") for point in points], 1.0

    profile_layers(layers, store, timer=timer)
    wanted = LatencyRequest(LatencyBudget.parse("0.5x"), target="tensorrt:10.3", profile=tmp_path / "board.jsonl")
    ef.plan_pruning(net, INPUT, latency=wanted)
    (report,) = wanted.reports
    assert report.predicted_ms <= 0.5 * report.whole_ms
    assert "layers were profiled on another machine" in report.describe()
    assert "a CPU" in report.settings
    wider = nn.Sequential(nn.Conv2d(3, 32, 5), nn.Conv2d(32, 32, 5))
    with pytest.raises(BackendError, match=r"has no layer conv-b1-.*there: eightfold profile MODEL --target tensorrt"):
        ef.plan_pruning(wider, INPUT, latency=wanted)
    other = LatencyRequest(LatencyBudget.parse("0.5x"), target="tensorrt:8.2", profile=tmp_path / "board.jsonl")
    with pytest.raises(BackendError, match=r"was measured with target 'tensorrt:10.3'.*eightfold profile MODEL"):
        ef.plan_pruning(net, INPUT, latency=other)
    (tmp_path / "none.jsonl").write_text("{}\n")
    broken = LatencyRequest(LatencyBudget.parse("0.5x"), target="tensorrt:8.2", profile=tmp_path / "none.jsonl")
    with pytest.raises(BackendError, match="is no layer profile"):
        ef.plan_pruning(net, INPUT, latency=broken)
