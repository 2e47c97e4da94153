"""Sensitivity on a local Ray cluster of two workers, against the same points measured here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from eightfold.compress.sensitivity.cluster import ray_spread
from eightfold.compress.sensitivity.curves import CurveOptions, sensitivity_curves
from eightfold.errors import MissingExtraError, ModelError, UsageError

OPTIONS = CurveOptions(ratios=(0.25, 0.5, 0.75))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 24, 3), nn.ReLU(), nn.Conv2d(24, 4, 1)).eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray, whose workers start and end
def test_two_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'eightfold[ray]'")
    model, image = network(), torch.rand(1, 3, 12, 12)
    batches = [(torch.rand(4, 3, 12, 12),)]
    here = sensitivity_curves(model, image, images=batches, options=OPTIONS, output=tmp_path / "here.json")
    part = tmp_path / "ray.json"
    first = CurveOptions(ratios=(0.5,), groups=("2.weight",))
    sensitivity_curves(model, image, images=batches, options=first, output=part)  # a run that was stopped
    there = sensitivity_curves(model, image, images=batches, options=OPTIONS, output=part, spread=ray_spread("2"))
    assert list(there.losses) == list(here.losses)
    for group, row in here.losses.items():
        assert list(there.losses[group]) == list(row)
        assert there.losses[group] == pytest.approx(row, abs=1e-5)

    def dies(other: nn.Module) -> float:
        if other.get_parameter("0.weight").shape[0] < 32:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    with pytest.raises(ModelError, match=r"a Ray worker died, .* run the same command again") as caught:
        sensitivity_curves(
            model, image, metric=dies, options=OPTIONS, output=tmp_path / "dead.json", spread=ray_spread("2")
        )
    assert "\n" not in str(caught.value)


def test_a_cluster_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="0 Ray workers; allowed: 1 or more"):
        ray_spread("0")
    monkeypatch.setattr("eightfold.extras.installed", lambda module: module != "ray")
    with pytest.raises(MissingExtraError, match=r"pip install 'eightfold\[ray\]'"):
        ray_spread("2")
