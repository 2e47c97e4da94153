"""Model sources: names, functions and weight files; wrong ones are one line."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source
from eightfold.zoo.user_code import code_of
from eightfold.zoo.weights import load_weights


def build_model(source: str, *, num_classes: int, seed: int = 0) -> nn.Module:
    return load_source(source, SourceOptions(num_classes=num_classes, seed=seed)).module


def small() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


def test_the_seed_fixes_the_weights() -> None:
    first, again, other = (build_model("squeezenet1_1", num_classes=3, seed=seed) for seed in (0, 0, 1))
    key = "classifier.1.weight"
    assert torch.equal(first.state_dict()[key], again.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_an_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet19'.*did you mean 'resnet1[08]'"):
        build_model("resnet19", num_classes=2)


def test_an_unknown_timm_name() -> None:
    pytest.importorskip("timm", reason="the extra [timm] is not installed")
    with pytest.raises(UnknownNameError, match="unknown timm model 'resnet18x'"):
        build_model("timm:resnet18x", num_classes=2)


def test_a_function_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def net(num_classes):\n    return nn.Linear(4, num_classes)\n"
        "def wrong(num_classes):\n    return 'net'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("mynets:net", num_classes=7)
    assert isinstance(model, nn.Linear)
    assert model.out_features == 7
    with pytest.raises(ModelError, match=r"mynets:wrong returned str; allowed: a torch\.nn\.Module"):
        build_model("mynets:wrong", num_classes=7)
    with pytest.raises(ModelError, match="cannot find mynets:absent"):
        build_model("mynets:absent", num_classes=7)
    del sys.modules["mynets"]


def test_a_function_below_folders_without_init_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the folders has been imported when its code is looked at."""
    (tmp_path / "outer_nets" / "inner").mkdir(parents=True)
    (tmp_path / "outer_nets" / "inner" / "parts.py").write_text("from torch import nn\nLAYER = nn.Linear(4, 3)\n")
    code = "from outer_nets.inner.parts import LAYER\ndef net():\n    return LAYER\n"
    (tmp_path / "outer_nets" / "inner" / "nets.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert set(code_of("outer_nets.inner.nets").modules) == {"outer_nets.inner.nets", "outer_nets.inner.parts"}
    assert build_model("outer_nets.inner.nets:net", num_classes=3).get_parameter("weight").shape == (3, 4)


def test_packages_of_another_environment_are_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .pth file or PYTHONPATH may add them: their files are no code of the user's own."""
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other_library.py").write_text("import json\n")
    (tmp_path / "uses_a_library.py").write_text("import other_library\n")
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    found = code_of("uses_a_library")
    assert set(found.modules) == {"uses_a_library"}
    assert found.libraries == {"other_library"}


def test_a_function_that_needs_nothing_is_called_with_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixed.py").write_text("from torch import nn\ndef net(width=3):\n    return nn.Linear(4, width)\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = build_model("fixed:net", num_classes=7)
    assert isinstance(model, nn.Linear)
    assert model.out_features == 3
    del sys.modules["fixed"]


def test_keywords_that_are_only_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision's RAFT does."""
    code = "from torch import nn\ndef net(*, progress=True, **kwargs):\n    return nn.PReLU(**kwargs)\n"
    (tmp_path / "handing.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(build_model("handing:net", num_classes=7), nn.PReLU)
    (tmp_path / "broken.py").write_text("def net(**kwargs):\n    return int(**kwargs, base='x')\n")
    with pytest.raises(ModelError, match="broken:net failed with TypeError"):
        build_model("broken:net", num_classes=7)
    for name in ("handing", "broken"):
        del sys.modules[name]


def test_a_function_that_needs_more_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"os:chdir\(path\) cannot be called with num_classes=10, .*allowed: a function"
    ):
        build_model("os:chdir", num_classes=10)


@pytest.mark.parametrize("name", ["best.pt", "runs/best.pth", "model.safetensors"])
def test_weights_in_the_place_of_a_network(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} in place of a network.*name that, with {name} as its weights"):
        build_model(name, num_classes=2)


@pytest.mark.parametrize("name", ["own_net", "own_net.py"])
def test_a_module_without_its_function(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_net.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="write own_net:FUNCTION"):
        build_model(name, num_classes=2)


def test_a_file_before_the_function() -> None:
    with pytest.raises(ModelError, match=r"cannot find nets/own\.py:build .*; write nets\.own:build"):
        build_model("nets/own.py:build", num_classes=2)


@pytest.mark.parametrize(
    "code", ["def build(): raise ValueError('no such depth')", "raise ValueError('no such depth')"]
)
def test_what_your_own_code_raises_is_no_defect_of_ours(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_net.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing_net", raising=False)
    with pytest.raises(ModelError, match="failing_net:build failed with ValueError: no such depth; eightfold --debug"):
        build_model("failing_net:build", num_classes=2)


def test_a_network_of_no_classes() -> None:
    with pytest.raises(UsageError, match="0 classes; allowed: 1 or more"):
        build_model("resnet18", num_classes=0)


def test_a_torchscript_archive_is_refused_without_another_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version", "code/a.py"):
            archive.writestr(f"net/{name}", b"6\n")
    with pytest.raises(ModelError, match="is not a plain state dict"):  # and a warning would be an error
        load_weights(small(), tmp_path / "net.pt")


def test_an_empty_weights_file(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ModelError, match=r"empty\.pt is empty"):
        load_weights(small(), tmp_path / "empty.pt")
