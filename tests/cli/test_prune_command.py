from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

import eightfold as ef
from eightfold.cli.compress.inspect import inspect
from eightfold.cli.compress.plan import Action, plan
from eightfold.cli.compress.prune import prune
from eightfold.cli.export.export import export
from eightfold.compress.plan.plan import PrunePlan
from eightfold.errors import ModelError, UsageError
from eightfold.zoo.sources.registry import load_source


def test_prune_then_compare_plans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, keep in (("half", 0.5), ("most", 0.75)):
        prune("resnet18", tmp_path / name, classes=10, size="64", keep=keep, prune=["layer1.*=0.25"])
    written = {path.name for path in (tmp_path / "half").iterdir()}
    assert written == {"weights.safetensors", "plan.json", "source.json"}
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


def test_options_of_plan_pruning_reach_the_plan(tmp_path: Path) -> None:
    prune(
        "resnet18",
        tmp_path / "p",
        classes=10,
        size="64",
        range=["4=0.75", "99=0.5"],
        remove_blocks="layer3.1,layer4.1",
        rounding="down",
    )
    done = PrunePlan.load(tmp_path / "p" / "plan.json")
    assert {block.path for block in done.removed_blocks} == {"layer3.1", "layer4.1"}
    shares = [len(group.kept) / group.width for group in done.groups]
    assert 0.75 in shares
    assert 0.5 in shares
    with pytest.raises(UsageError, match=r"--range 4; allowed: UNTIL=KEEP"):
        prune("resnet18", tmp_path / "q", size="64", range=["4"])
    with pytest.raises(UsageError, match="2 residual blocks to be removed, and no images"):
        prune("resnet18", tmp_path / "q", size="64", remove_blocks="2")


def test_the_costs_before_and_after_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MACs of a 1x1 convolution are height * width * inputs * outputs; of a linear layer inputs * outputs."""
    prune("resnet18", tmp_path / "p", classes=10, size="64", rule="slim", score="bn_scale")
    told = capsys.readouterr().out
    before = FlopCounterMode(display=False)
    with before, torch.no_grad():
        torchvision.models.resnet18(num_classes=10).eval()(torch.zeros(1, 3, 64, 64))
    after = FlopCounterMode(display=False)
    with after, torch.no_grad():
        load_source(str(tmp_path / "p")).module.eval()(torch.zeros(1, 3, 64, 64))
    assert f"MACs {before.get_total_flops() // 2:,} -> {after.get_total_flops() // 2:,}" in told
    assert "threshold of the scores: 1" in told  # batch norms before training have scales of 1
    inspect(str(tmp_path / "p"))
    assert f"MACs {before.get_total_flops() // 2:,} -> {after.get_total_flops() // 2:,}" in capsys.readouterr().out
    inspect(str(tmp_path / "p"), params=True)
    assert "conv1.weight" in capsys.readouterr().out


def test_a_pruned_folder_is_a_network_of_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prune("resnet18", tmp_path / "once", classes=10, size="64")
    prune(str(tmp_path / "once"), tmp_path / "twice", keep=0.75)
    export(str(tmp_path / "twice"), tmp_path / "bundle")
    capsys.readouterr()
    inspect(str(tmp_path / "twice"))
    assert f"pruned from {tmp_path / 'once'}" in capsys.readouterr().out
    bundle = ef.Bundle.open(tmp_path / "bundle")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_source(str(tmp_path / "twice")).module.eval()(images)
    with ef.Predictor(bundle) as predictor:
        (found,) = predictor.run(images.numpy()).values()
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)
    assert bundle.manifest.preprocess.resize == "center-crop"  # as torchvision prepares for its weights


def test_a_pruned_folder_whose_source_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone_net.py").write_text(
        "from torch import nn\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, num_classes, 1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    prune("gone_net:net", tmp_path / "p", classes=8, size="16")
    with pytest.warns(UserWarning, match="p imports your code: gone_net:net"):
        assert load_source(str(tmp_path / "p")).arguments == {}
    record = tmp_path / "p" / "source.json"
    record.write_text(record.read_text().replace('"num_classes": 8', '"num_classes": 9'))
    with (
        pytest.warns(UserWarning, match="imports your code"),
        pytest.raises(ModelError, match=r"pruned from gone_net:net, .*2\.weight.* \(9, 16, 1, 1\); allowed: \(8, 16"),
    ):
        load_source(str(tmp_path / "p"))
    monkeypatch.delitem(sys.modules, "gone_net")
    (tmp_path / "gone_net.py").unlink()
    with (
        pytest.warns(UserWarning, match="imports your code"),
        pytest.raises(ModelError, match="pruned from gone_net:net, which does not load: cannot find gone_net:net"),
    ):
        load_source(str(tmp_path / "p"))


def test_a_standalone_folder_loads_without_eightfold(tmp_path: Path, warm_python: str) -> None:
    """In a process that cannot import eightfold: grouped and depthwise convolutions, norms, a removed block."""
    prune("shufflenet_v2_x1_0", tmp_path / "a", classes=10, size="64", standalone=True)
    prune("resnet18", tmp_path / "b", classes=10, size="64", standalone=True, remove_blocks="layer3.1")
    images = torch.rand(2, 3, 64, 64)
    for folder, name in (("a", "shufflenet_v2_x1_0"), ("b", "resnet18")):
        torch.save(images, tmp_path / "images.pt")
        program = (
            "import sys, torch, torchvision; sys.modules['eightfold'] = None; from load import load\n"
            f"model = load(torchvision.models.{name}(num_classes=10))\n"
            "torch.save(model(torch.load('../images.pt')).detach(), '../found.pt')\n"
        )
        subprocess.run([warm_python, "-c", program], cwd=tmp_path / folder, check=True)
        with torch.no_grad():
            expected = load_source(str(tmp_path / folder)).module.eval()(images)
        assert torch.equal(torch.load(tmp_path / "found.pt"), expected)
    assert len((tmp_path / "a" / "load.py").read_text().splitlines()) < 60
