"""Layers that a plan within a latency budget keeps in float, on their way to the step that quantizes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.compress.latency.report import LatencyReport
from eightfold.export.int8.float_layers import weighted_labels
from eightfold.pipeline.job import run_files as at
from eightfold.pipeline.steps.int8 import _layers_planned_float


@pytest.fixture
def job(tmp_path: Path) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    ef.export_onnx(net, tmp_path / "net.onnx", batch=1, image_size=8)
    (tmp_path / "plan").mkdir()
    LatencyReport(
        settings="", batch=1, budget="0.5x", budget_ms=1, multiple=8, measured=True, whole_ms=2, predicted_ms=1,
        gap=0, solve_s=0, counts={}, keep_float=("2.weight",), float_places=(1,), weighted_layers=3,
    ).save(tmp_path / at.LATENCY_PLAN)  # fmt: skip
    section = SimpleNamespace(latency="0.5x", precision="mixed")
    artifacts = SimpleNamespace(calibration=SimpleNamespace(path="net.onnx"))
    return SimpleNamespace(
        recipe=SimpleNamespace(compress=section), artifacts=artifacts, path=lambda name: tmp_path / name
    )


def test_the_plan_s_layers_stay_in_float(job: Any, tmp_path: Path) -> None:
    assert _layers_planned_float(job) == [weighted_labels(tmp_path / "net.onnx")[1]]


@pytest.mark.parametrize("section", [{"precision": "int8"}, {"latency": None}])
def test_other_recipes_plan_no_precisions(job: Any, section: dict[str, Any]) -> None:
    vars(job.recipe.compress).update(section)
    assert _layers_planned_float(job) == []
