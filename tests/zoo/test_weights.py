"""Weights files: plain, wrapped, averaged, damaged and hostile ones."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from eightfold.errors import ModelError
from eightfold.zoo.weights import WeightsWarning, load_weights


def small() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_back(tmp_path: Path, suffix: str) -> None:
    source, target, path = small(), small(), tmp_path / f"w{suffix}"
    nn.init.constant_(source[0].weight, 3.0)  # type: ignore[index]  # Sequential is indexed by position
    state = source.state_dict()
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    load_weights(target, path)
    assert all(torch.equal(target.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_weights_of_another_shape_name_the_first_difference(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 9, 3), nn.BatchNorm2d(8)).state_dict(), path)
    with pytest.raises(ModelError, match=r"0\.weight is \(9, 3, 3, 3\), the model has \(8, 3, 3, 3\)"):
        load_weights(small(), path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"0.bias": torch.zeros(8)}, path)
    with pytest.raises(ModelError, match=r"0\.weight is absent, the model has"):
        load_weights(small(), path)


def test_a_checkpoint_gives_its_only_state_dict(tmp_path: Path) -> None:
    source, target, path = small(), small(), tmp_path / "checkpoint.pt"
    nn.init.constant_(source[0].weight, 3.0)  # type: ignore[index]  # Sequential is indexed by position
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1, momentum=0.9)
    torch.save({"net": source.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    load_weights(target, path)
    assert torch.equal(target.state_dict()["0.weight"], source.state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"net": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}, r"holds the state dicts net, ema; .*'NAME'"),
        ({"epoch": 3}, "holds dict; allowed: a state dict"),
        ({}, "holds dict"),
        ([torch.zeros(1)], "holds list"),
    ],
)
def test_a_checkpoint_without_one_state_dict_is_refused(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=words):
        load_weights(small(), tmp_path / "w.pt")


class Payload:
    """Unpickling one leaves a mark."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("unpickled"),)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": Payload()}, "whole.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("whole.pt", "plain.pt"):
        with pytest.raises(ModelError, match=r"not a plain state dict.*torch\.save\(model\.state_dict\(\)"):
            load_weights(small(), name)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_files_that_hold_no_weights(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        load_weights(small(), tmp_path / name)
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="is not a"):
        load_weights(small(), tmp_path / name)


def trained() -> nn.Module:
    """A module whose values no other one has."""
    model = small()
    for number, tensor in enumerate(model.state_dict().values()):
        tensor.fill_(number + 2)
    return model


def compiled(model: nn.Module) -> dict[str, object]:
    return dict(torch.compile(model).state_dict())  # type: ignore[attr-defined]  # torch types its result as a function


def in_parallel(model: nn.Module) -> dict[str, object]:
    return dict(nn.DataParallel(nn.DataParallel(model)).state_dict())


def averaged(model: nn.Module) -> dict[str, object]:
    return dict(torch.optim.swa_utils.AveragedModel(model).state_dict())


def in_lightning(model: nn.Module) -> dict[str, object]:
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return {"epoch": 3, "state_dict": state, "optimizer_states": [], "callbacks": {}}


def compiled_inside(model: nn.Module) -> dict[str, object]:
    return {f"net.{name.replace('.', '._orig_mod.')}": tensor for name, tensor in model.state_dict().items()}


def without_counters(model: nn.Module) -> dict[str, object]:
    return {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (compiled, "removed the prefix '_orig_mod.'"),
        (in_parallel, "removed the prefix 'module.module.'"),
        (averaged, "removed the prefix 'module.'"),
        (in_lightning, "removed the prefix 'model.'"),
        (compiled_inside, "removed '_orig_mod.' from the names; removed the prefix 'net.'"),
        (without_counters, ""),
    ],
)
def test_names_of_wrappers_and_trainers_fit(
    tmp_path: Path, written: Callable[[nn.Module], dict[str, object]], said: str
) -> None:
    source, target, path = trained(), small(), tmp_path / "w.pt"
    torch.save(written(source), path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_weights(target, path)
    for name, tensor in source.state_dict().items():
        if name in written(source) or "num_batches" not in name:
            assert torch.equal(target.state_dict()[name], tensor), name
    assert len(caught) == bool(said)
    assert all(said in str(each.message) for each in caught)


def test_weights_of_the_part_inside_a_wrapper_fit(tmp_path: Path) -> None:
    source, target = trained(), nn.ModuleDict({"net": small()})
    torch.save(source.state_dict(), tmp_path / "w.pt")
    with pytest.warns(WeightsWarning, match=r"put 'net\.' before the names"):
        load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target.state_dict()["net.0.weight"], source.state_dict()["0.weight"])


@pytest.mark.parametrize("name", ["ema", "model_ema", "state_dict_ema"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_averaged_weights_are_taken(tmp_path: Path, name: str, nested: bool) -> None:
    source, target = trained(), small()
    average = {"module": source.state_dict()} if nested else source.state_dict()
    torch.save({"state_dict": small().state_dict(), name: average, "epoch": 1}, tmp_path / "w.pt")
    with pytest.warns(WeightsWarning, match=f"took '{name}"):
        load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_weights_that_no_change_of_names_fits_are_refused_by_the_first_difference(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in small().state_dict().items()}
    state["module.0.weight"] = torch.zeros(9, 3, 3, 3)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"0\.weight is \(9, 3, 3, 3\), the model has \(8, 3, 3, 3\)"):
        load_weights(small(), tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match=r"is a Git LFS pointer.*git lfs pull"):
        load_weights(small(), tmp_path / name)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Conv2d(3, 64, 3).state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(
        ModelError, match=r"weights\.pt is not a plain state dict: it holds more than tensors, or is damaged"
    ):
        load_weights(nn.Conv2d(3, 64, 3), path)


def test_weights_of_a_training_that_diverged_are_refused(tmp_path: Path) -> None:
    source, target, path = small(), small(), tmp_path / "w.pt"
    state = source.state_dict()
    state["1.running_mean"][3] = float("nan")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    torch.save({"model": state}, path)
    with pytest.raises(ModelError, match=r"'1\.running_mean' holds NaN; allowed: trained weights"):
        load_weights(target, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def beside(prefix: str, **others: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state dict of a trainer's module that holds the network and more."""
    return {**{f"{prefix}{name}": tensor for name, tensor in trained().state_dict().items()}, **others}


EXTRAS = {
    "loss": (beside("model.", **{"loss.weight": torch.ones(10)}), r"'model\.'; left out a tensor .*: loss\.weight$"),
    "metrics": (
        beside("model.", **{f"metrics.{name}": torch.zeros(1) for name in ("tp", "fp", "tn", "fn")}),
        r"left out 4 tensors that the network does not have: metrics\.tp, metrics\.fp, metrics\.tn, \.\.\.$",
    ),
    "no prefix": (beside("", **{"criterion.center": torch.ones(2)}), r": left out a tensor .*: criterion\.center$"),
    "deep": (
        beside("module.net.body.", **{"module.net.loss": torch.ones(1)}),
        r"'net\.body\.'; .*: module\.net\.loss$",
    ),
    "compiled": (beside("model._orig_mod.", **{"loss.weight": torch.ones(1)}), r"'model\.'; .*: loss\.weight$"),
    "average": (
        beside("ema_model.", **{f"model.{name}": tensor for name, tensor in small().state_dict().items()}),
        r"'ema_model\.'; left out 7 tensors",
    ),
}


@pytest.mark.parametrize(("state", "words"), EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("nested", [False, True])
def test_a_network_among_other_tensors_is_taken_and_the_rest_is_named(
    tmp_path: Path, state: dict[str, torch.Tensor], words: str, nested: bool
) -> None:
    target = small()
    torch.save({"state_dict": state, "epoch": 1} if nested else state, tmp_path / "w.pt")
    with pytest.warns(WeightsWarning, match=words):
        load_weights(target, tmp_path / "w.pt")
    for name, tensor in trained().state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_a_network_that_is_not_whole_is_none(tmp_path: Path) -> None:
    state = beside("model.", **{"loss.weight": torch.ones(10)})
    del state["model.1.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"the model has"):
        load_weights(small(), tmp_path / "w.pt")


def test_a_teacher_and_a_student_are_not_told_apart(tmp_path: Path) -> None:
    torch.save({**beside("student."), **beside("teacher."), "loss.weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(
        ModelError, match=r"holds the network 2 times, as 'student\.' and 'teacher\.'; .*; save the state"
    ):
        load_weights(small(), tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_deeper_network_is_not_a_shallow_one_and_more(tmp_path: Path, prefix: str) -> None:
    """All tensors of the shallow one are there, and its answers would be nonsense."""
    deeper = nn.Sequential(*small().children(), nn.Conv2d(8, 8, 1))
    state = {f"{prefix}{name}": tensor for name, tensor in deeper.state_dict().items()}
    torch.save({**state, "loss.weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt"):
        load_weights(small(), tmp_path / "w.pt")


def test_the_weights_of_a_larger_resnet_are_refused(tmp_path: Path) -> None:
    """Every tensor of ResNet-18 has its like in ResNet-34."""
    torchvision = pytest.importorskip("torchvision", reason="the extra [compress] is not installed")
    torch.save(torchvision.models.resnet34(num_classes=4).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"layer1\.2\.conv1\.weight is \(64, 64, 3, 3\), the model has absent"):
        load_weights(torchvision.models.resnet18(num_classes=4), tmp_path / "w.pt")
