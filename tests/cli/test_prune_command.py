from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.cli.compress.inspect import inspect
from eightfold.cli.compress.plan import Action, plan
from eightfold.cli.compress.prune import prune
from eightfold.errors import UsageError


def test_prune_then_compare_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, keep in (("half", 0.5), ("most", 0.75)):
        prune("resnet18", tmp_path / name, classes=10, size="64", keep=keep, prune=["layer1.*=0.25"])
    assert {path.name for path in (tmp_path / "half").iterdir()} == {"weights.safetensors", "plan.json"}
    assert "layer1.0.conv1.weight: 3 -> 64" not in capsys.readouterr().out
    plan(Action.diff, [tmp_path / "half", tmp_path / "most"])
    text = capsys.readouterr().out
    assert "layer2.0.conv1.weight: keeps 64 -> 96 of 128" in text
    assert "layer1.0.conv1.weight" not in text  # 48 of 64 in both, as --prune says


def test_inspect_tells_about_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    inspect("resnet18", size="64", classes=10)
    text = capsys.readouterr().out
    assert "layer4" in text
    assert "frozen:" in text


@pytest.mark.parametrize("option", ["layer1", "layer1=1", "layer1=x"])
def test_a_share_that_is_none_is_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="NAME=SHARE"):
        prune("resnet18", tmp_path, size="64", prune=[option])


def test_plan_wants_the_right_number_of_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="diff PLAN PLAN"):
        plan(Action.diff, [tmp_path])
