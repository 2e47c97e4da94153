"""Sensitivity curves against pruning by hand; resume, merging, ratios by loss and by budget."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.compress.sensitivity.curves import CurveOptions, SensitivityCurves, merge_curves, sensitivity_curves
from eightfold.compress.sensitivity.ratios import plot_curves, ratios_for_budget
from eightfold.errors import ModelError, UnknownNameError, UsageError

IMAGE = torch.rand(4, 3, 8, 8)
OPTIONS = CurveOptions(ratios=(0.25, 0.5, 0.75))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 5, 1), nn.Flatten()
    ).eval()


def closeness(model: nn.Module) -> float:
    """In (0, 1], 1 for the whole network."""
    with torch.no_grad():
        return float(1 / (1 + (model(IMAGE) - network()(IMAGE)).square().mean()))


def test_a_point_is_the_metric_of_the_network_with_that_group_pruned_alone(tmp_path: Path) -> None:
    curves = sensitivity_curves(network(), IMAGE, metric=closeness, options=OPTIONS, output=tmp_path / "curves.json")
    assert curves.baseline == 1
    assert {name: sorted(row) for name, row in curves.losses.items()} == {
        "0.weight": [0.25, 0.5, 0.75],
        "2.weight": [0.25, 0.5, 0.75],
    }
    by_hand = network()
    ef.prune(by_hand, IMAGE, score="l2", keep_ratio=1.0, keep={"2.weight": 0.5})
    assert curves.losses["2.weight"][0.5] == pytest.approx(1 - closeness(by_hand))
    assert SensitivityCurves.load(tmp_path / "curves.json") == curves
    assert "share of it that is lost" in curves.describe()
    assert plot_curves(curves, tmp_path / "curves.svg").read_text().startswith("<?xml")


def test_without_labels_outputs_are_compared() -> None:
    curves = sensitivity_curves(network(), IMAGE, images=[IMAGE], options=OPTIONS)
    for row in curves.losses.values():
        values = [loss for _, loss in sorted(row.items())]
        assert values[0] >= -1e-6
        assert values[-1] > 0


def test_a_killed_run_goes_on_and_split_runs_merge_to_the_same(tmp_path: Path) -> None:
    whole = sensitivity_curves(network(), IMAGE, metric=closeness, options=OPTIONS)
    calls = itertools.count()

    def killed(model: nn.Module) -> float:
        if next(calls) == 3:  # the baseline and two points are done
            raise KeyboardInterrupt
        return closeness(model)

    path = tmp_path / "curves.json"
    with pytest.raises(KeyboardInterrupt):
        sensitivity_curves(network(), IMAGE, metric=killed, options=OPTIONS, output=path)
    seen = itertools.count()

    def counted(model: nn.Module) -> float:
        next(seen)
        return closeness(model)

    again = sensitivity_curves(network(), IMAGE, metric=counted, options=OPTIONS, output=path)
    assert again == whole
    assert next(seen) == 4  # of six points
    parts = [
        sensitivity_curves(network(), IMAGE, metric=closeness, options=CurveOptions(ratios, groups=groups))
        for ratios, groups in (((0.75,), ("*",)), ((0.5, 0.25), ("2*",)), ((0.25, 0.5), ("0*",)))
    ]
    assert merge_curves(parts) == merge_curves(parts[::-1]) == merge_curves([whole])
    with pytest.raises(UsageError, match="different networks"):
        merge_curves([whole, SensitivityCurves(0.5, {})])
    with pytest.raises(UsageError, match="has a multiple of 8; allowed: 4"):
        sensitivity_curves(network(), IMAGE, metric=closeness, options=CurveOptions(multiple=4), output=path)
    path.write_text("[]")
    with pytest.raises(ModelError, match="holds no sensitivity curves"):
        sensitivity_curves(network(), IMAGE, metric=closeness, output=path)


def test_ratios_by_loss_scan_from_the_largest_and_interpolate() -> None:
    curves = SensitivityCurves(
        1.0,
        {
            "last": {0.25: 0.0, 0.5: 0.02, 0.75: 0.05},
            "between": {0.25: 0.01, 0.5: 0.1},
            "none": {0.25: 0.2, 0.5: 0.4},
            "dip": {0.25: 0.3, 0.5: 0.04, 0.75: 0.1},
        },
    )
    found = curves.ratios_by_loss(0.055)
    assert found == {
        "last": 0.75,
        "between": pytest.approx(0.25 + 0.045 * 0.25 / 0.09),
        "dip": pytest.approx(0.5 + 0.015 * 0.25 / 0.06),
    }


def test_ratios_for_a_budget_have_the_smallest_loss_that_meets_it() -> None:
    model = network()
    curves = sensitivity_curves(model, IMAGE, metric=closeness, options=OPTIONS)
    ratios = ratios_for_budget(curves, model, IMAGE, max_macs=0.5)
    before = ef.count_macs(model, IMAGE)
    narrow = copy.deepcopy(model)
    ef.prune(narrow, IMAGE, keep_ratio=1.0, keep={name: 1 - ratio for name, ratio in ratios.items()})
    assert ef.count_macs(narrow, IMAGE) <= 0.5 * before
    losses = sorted({loss for row in curves.losses.values() for loss in row.values()})
    loss = next(loss for loss in losses if ratios_of(curves, loss, model) <= 0.5 * before)
    assert all(ratio <= curves.ratios_by_loss(loss)[name] + 1e-9 for name, ratio in ratios.items())
    with pytest.raises(UsageError, match="out of reach of the measured ratios"):
        ratios_for_budget(curves, model, IMAGE, max_macs=0.01)
    with pytest.raises(UsageError, match="without a budget"):
        ratios_for_budget(curves, model, IMAGE)


def ratios_of(curves: SensitivityCurves, loss: float, model: nn.Module) -> int:
    narrow = copy.deepcopy(model)
    keep = {name: 1 - ratio for name, ratio in curves.ratios_by_loss(loss).items()}
    ef.prune(narrow, IMAGE, keep_ratio=1.0, keep=keep)
    return int(ef.count_macs(narrow, IMAGE))


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="a metric and images both given"):
        sensitivity_curves(network(), IMAGE)
    with pytest.raises(UsageError, match=r"ratios \[1.0\]"):
        CurveOptions(ratios=(1.0,))
    with pytest.raises(UnknownNameError, match="unknown group '3'"):
        sensitivity_curves(network(), IMAGE, metric=closeness, options=CurveOptions(groups=("3",)))
    with pytest.raises(UsageError, match="metric is 0; allowed: above 0"):
        sensitivity_curves(network(), IMAGE, metric=lambda model: 0.0)
