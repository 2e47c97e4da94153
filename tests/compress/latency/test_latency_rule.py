"""Plans within a latency budget, on a device of our own whose latency is known for every width."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import layer_scores
from eightfold.compress.latency import case, prepare
from eightfold.compress.latency.plot import save_report
from eightfold.compress.latency.prepare import RooflineWarning
from eightfold.compress.latency.report import LatencyReport
from eightfold.compress.latency.request import LatencyRequest, latency_request
from eightfold.compress.latency.rounds import Rescoring
from eightfold.compress.latency.whole_network import WholeNetwork, fitting_plans
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.compress.plan.latency.prices import Prices
from eightfold.compress.plan.latency.widths import widest
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.errors import TraceError, UnknownNameError, UsageError
from eightfold.runtime.bench.profile.grid import Point
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.settings import ProfileSettings
from eightfold.runtime.bench.profile.store import ProfileStore

INPUT = torch.zeros(1, 3, 32, 32)
SETTINGS = ProfileSettings(target="cpu-x86", backend="onnxruntime", backend_version="1", threads=1, device="a CPU")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64), (64, 96)):
        blocks += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)).eval()


def layer_time(point: Point) -> float:
    """Whole blocks of 16 output channels."""
    shape, inputs, outputs = point
    return 0.01 + shape.macs(inputs if shape.two_sided else outputs, -(-outputs // 16) * 16) * 1e-7


def timer(points: Sequence[Point], _: ProfileSettings) -> tuple[list[float], float]:
    return [layer_time(point) for point in points], 1.0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Layers and whole networks take what `layer_time` says; a network takes 1.2 times its layers and 0.05 ms.

    Gives the names of the measured networks."""
    measured: list[str] = []

    def profile(layers: tuple[object, ...], _: LatencyRequest) -> LayerProfile:
        return profile_layers(widest(layers), ProfileStore(SETTINGS, None), timer=timer)  # type: ignore[arg-type]

    def measure(self: WholeNetwork, counts: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
        from eightfold.compress.latency.network_layers import network_layers

        layers = network_layers(self.model, self.example_inputs, self.graph)
        sums = Prices(layers, lambda shape, i, o: layer_time((shape, round(i), round(o))))
        measured.extend(counts)
        return {name: 0.05 + 1.2 * sums.network_ms(kept) for name, kept in counts.items()}

    monkeypatch.setattr(case, "FRONT", (0.5,))
    monkeypatch.setattr(prepare, "layer_profile", profile)
    monkeypatch.setattr(WholeNetwork, "measure", measure)
    return measured


def request(budget: str, **options: object) -> LatencyRequest:
    return LatencyRequest(LatencyBudget.parse(budget), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.7, 0.5, 0.35])
def test_a_plan_measures_what_was_asked(device: list[str], share: float) -> None:
    wanted = request(f"{share}x")
    plan = ef.plan_pruning(network(), INPUT, latency=wanted)
    (report,) = wanted.reports
    assert report.measured_ms is not None
    assert 0.85 * share <= report.measured_ms / report.whole_ms <= share * 1.0001
    assert abs(report.miss or 0.0) < 0.03
    assert plan.rule == "latency"
    assert all(len(group.kept) % 8 == 0 for group in plan.groups)


def test_counts_lie_on_the_device_s_blocks(device: list[str]) -> None:
    plan = ef.plan_pruning(network(), INPUT, latency="0.5x")
    assert all(len(group.kept) % 16 == 0 for group in plan.groups if group.width >= 64)


def test_the_best_channels_stay(device: list[str]) -> None:
    net = network()
    plan = ef.plan_pruning(net, INPUT, latency="0.5x", score="l1")
    kept = plan.kept["2.weight"]
    norms = dict(net.named_parameters())["2.weight"].detach().abs().mean((1, 2, 3))
    assert set(kept.tolist()) == set(norms.argsort(descending=True)[: len(kept)].tolist())


def test_more_importance_stays_than_in_a_uniform_plan_as_fast(device: list[str]) -> None:
    wanted = request("0.5x")
    ef.plan_pruning(network(), INPUT, latency=wanted)
    points = wanted.reports[0].points
    chosen = next(point for point in points if point.kind == "chosen")
    slower = [point for point in points if point.kind == "uniform" and point.predicted_ms <= chosen.predicted_ms]
    assert slower
    assert all(point.importance <= chosen.importance for point in slower)


def test_names_that_stay_whole_stay_whole(device: list[str]) -> None:
    plan = ef.plan_pruning(network(), INPUT, latency="0.6x", ignore=["2.weight"], keep={"4.weight": 0.5})
    assert "2.weight" not in plan.kept
    assert len(plan.kept["4.weight"]) == 32


def test_an_impossible_budget_names_the_fastest_and_what_limits_it(device: list[str]) -> None:
    with pytest.raises(UsageError, match=r"out of reach; allowed: .* ms \(0\.\d+x\) or more.*what limits it: .*weight"):
        ef.plan_pruning(network(), INPUT, latency="0.01x")


def test_measured_errors_may_decide(device: list[str]) -> None:
    images = torch.rand(8, 3, 32, 32)
    plan = ef.plan_pruning(network(), INPUT, latency="0.5x", rule="measured", images=images)
    assert plan.groups
    with pytest.raises(UsageError, match="got no images"):
        ef.plan_pruning(network(), INPUT, latency="0.5x", rule="measured")


def test_a_miss_is_measured_refitted_and_solved_once_more(device: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = WholeNetwork.measure

    def slow_plans(self: WholeNetwork, counts: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
        return {name: ms * (1.1 if name == "plan" else 1.0) for name, ms in plain(self, counts).items()}

    monkeypatch.setattr(WholeNetwork, "measure", slow_plans)
    wanted = request("0.5x")
    ef.plan_pruning(network(), INPUT, latency=wanted)
    (report,) = wanted.reports
    assert report.solves == 2
    assert device.count("plan") == 2


def test_without_the_device_a_roofline_says_how_uncertain_it_is() -> None:
    wanted = request("0.5x", target="tensorrt:10.3")
    with pytest.warns(RooflineWarning, match="latencies are a roofline's"):
        ef.plan_pruning(network(), INPUT, latency=wanted)
    (report,) = wanted.reports
    assert report.measured_ms is None
    assert "uncertain by a factor of 2" in report.describe()
    with pytest.raises(UsageError, match=r"a budget of 3 ms for tensorrt:10.3, which is not here"):
        ef.plan_pruning(network(), INPUT, latency="3ms", target="tensorrt:10.3")


class Residual(nn.Module):
    """Two residual blocks, of which the second adds next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, 1, 1)
        self.block1, self.block2 = Block(), Block()
        with torch.no_grad():
            self.block2.second.weight.mul_(1e-3)
        self.head = nn.Conv2d(32, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.block2(self.block1(self.stem(x)))).mean((2, 3))
        return found


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


def test_each_round_scores_what_the_round_before_left(device: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[PrunePlan] = []

    def counted(self: Rescoring, plan: PrunePlan) -> LayerScores:
        plans.append(plan)
        return whole(self, plan)

    whole = Rescoring.__call__
    monkeypatch.setattr(Rescoring, "__call__", counted)
    wanted = request("0.4x", rounds=3)
    net = network()
    final = ef.plan_pruning(net, INPUT, latency=wanted, score="l1")
    (report,) = wanted.reports
    assert report.rounds == 3
    assert report.measured_ms is not None
    assert report.measured_ms <= report.budget_ms * 1.0001
    assert len(plans) == 2
    for earlier, later in zip(plans, [*plans[1:], final], strict=True):
        assert later.kept.keys() >= earlier.kept.keys()
        assert all(set(later.kept[name].tolist()) <= set(kept.tolist()) for name, kept in earlier.kept.items())


def test_scores_after_a_round_are_those_of_the_pruned_network() -> None:
    net = network()
    graph = ef.trace(net, INPUT)
    kept = {"0.weight": np.array([1, 3, 4, 6, 8, 12, 20, 31]), "2.weight": np.arange(8, 40)}
    plan = PrunePlan.from_graph(graph, kept)
    scores = layer_scores(Evidence(net, graph), "l1")
    found = Rescoring(net, INPUT, graph, scores, "l1")(plan)
    small = copy.deepcopy(net)
    ef.apply_plan(small, plan)
    alone = layer_scores(Evidence(small, ef.trace(small, INPUT)), "l1")
    for name, places in kept.items():
        np.testing.assert_allclose(found[name][:, places], alone[name])
        assert not np.delete(found[name], places, axis=1).any()
    np.testing.assert_allclose(found["4.weight"], alone["4.weight"])
    assert not np.allclose(found["2.weight"], scores["2.weight"])


def test_the_batch_norms_of_a_round_are_estimated_anew() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16)).eval()
    seen: list[float] = []

    def variance(evidence: Evidence) -> LayerScores:
        seen.append(dict(evidence.model.named_buffers())["3.running_var"].mean().item())
        return {group.id: np.ones((1, group.width)) for group in evidence.graph.free}

    images = torch.rand(8, 3, 16, 16)
    graph = ef.trace(net, INPUT)
    scores = variance(Evidence(net, graph))
    plan = PrunePlan.from_graph(graph, {"0.weight": np.arange(8)})
    Rescoring(net, INPUT, graph, scores, variance, [(images,)])(plan)
    small = copy.deepcopy(net)
    ef.apply_plan(small, plan)
    first, _, second, _ = small
    with torch.no_grad():
        features = first(images)
        mean, var = features.mean((0, 2, 3), keepdim=True), features.var((0, 2, 3), keepdim=True)
        wanted = second((features - mean) / (var + 1e-5).sqrt()).var((0, 2, 3)).mean().item()
    assert seen == [pytest.approx(1.0), pytest.approx(wanted, rel=1e-2)]
    assert dict(net.named_buffers())["3.running_var"].mean().item() == 1.0


def test_a_measured_step_of_the_asked_precision_is_the_multiple(
    device: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int | None]] = []

    def store(self: LatencyRequest) -> ProfileStore:
        asked.append((self.precision, self.threads))
        found = ProfileStore(SETTINGS, None)
        profile_layers({}, found, timer=timer)
        return found

    monkeypatch.setattr(LatencyRequest, "store", store)
    done = ef.prune(network(), INPUT, multiple="auto", precision="int8", threads=3, keep_ratio=0.55)
    assert asked == [("int8", 3)]
    assert done.plan.multiple == 16
    assert all(len(group.kept) % 16 == 0 for group in done.plan.groups)


def test_the_block_that_adds_least_goes_before_channels_do(device: list[str]) -> None:
    images = torch.rand(4, 3, 32, 32)
    wanted = request("0.6x")
    plan = ef.plan_pruning(Residual().eval(), INPUT, latency=wanted, remove_blocks=("auto",), images=images)
    assert [block.path for block in plan.removed_blocks] == ["block2"]
    assert wanted.reports[-1].predicted_ms <= wanted.reports[-1].budget_ms
    with pytest.raises(UsageError, match="no images to measure them on"):
        ef.plan_pruning(Residual().eval(), INPUT, latency="0.6x", remove_blocks=("auto",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": "fast"}, "a latency budget of 'fast'"),
        ({"latency": "0.5x", "rounds": 0}, "0 rounds of a latency budget"),
        ({"latency": "0.5x", "rounds": 2, "rule": "measured", "images": torch.rand(2, 3, 32, 32)}, "2 rounds with the"),
        ({"latency": "0.5x", "batch": 0}, "batch 0 of a latency budget"),
        ({"latency": "0.5x", "max_macs": 0.5}, "beside one of MACs"),
        ({"latency": "0.5x", "precision": "fp8"}, "unknown precision"),
        ({"remove_blocks": ("auto",)}, "without a latency budget"),
        ({"multiple": "wide"}, "a multiple of 'wide'"),
        ({"multiple": "auto", "target": "tensorrt"}, "cannot be timed here"),
        ({"latency": "0.5x", "profile": "nowhere.jsonl"}, "there is no profile 'nowhere.jsonl'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a layer is timed, which takes minutes."""

    def timed(*_: object, **__: object) -> None:
        pytest.fail("layers were timed")

    monkeypatch.setattr(prepare, "profile_layers", timed)
    with pytest.raises(UsageError, match=message):
        ef.plan_pruning(network(), INPUT, **options)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="abacus"):
        ef.plan_pruning(network(), INPUT, latency="0.5x", target="abacus")


def test_the_report_is_json_and_a_plot(device: list[str], tmp_path: Path) -> None:
    net = network()
    done = ef.prune(net, INPUT, latency="0.5x")
    assert done.latency is not None
    written = save_report(done.latency, tmp_path)
    assert LatencyReport.load(written[0]) == done.latency
    assert "<svg" in written[1].read_text()
    assert "the plan" in done.describe()
    kinds = {point.kind for point in done.latency.points}
    assert kinds == {"whole", "chosen", "optimal", "uniform", "global", "fit"}
    assert {point.name for point in done.latency.points} >= {"uniform at 0.5", "global at 0.5", "optimal at 0.5x"}
    assert all(kind in written[1].read_text() for kind in ("budget", "importance that stays"))
    assert "MISSED" not in done.describe()
    slow = done.latency.model_copy(update={"measured_ms": 1.1 * done.latency.budget_ms})
    assert "the budget is MISSED by 10.0%" in slow.describe()


def test_fitting_plans_span_the_widths() -> None:
    plans = fitting_plans({"a": (8, 16, 32), "b": (16, 64)})
    assert plans["whole"] == {"a": 32, "b": 64}
    assert plans["uniform 0.5"] == {"a": 16, "b": 16}
    assert all(counts["a"] in (8, 16, 32) for counts in plans.values())


def test_a_request_passes_through() -> None:
    wanted = request("0.5x")
    assert latency_request(wanted) is wanted
    assert latency_request(None) is None


def test_a_network_without_layers_has_no_latency(device: list[str]) -> None:
    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    with warnings.catch_warnings(), pytest.raises((UsageError, TraceError)):
        ef.plan_pruning(Nothing(), INPUT, latency="0.5x")
