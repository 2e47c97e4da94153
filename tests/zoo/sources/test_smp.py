"""segmentation-models-pytorch as a source: against the network that the library builds itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import eightfold as ef
from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.export.verify.verify import run_onnx
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import known_names, load_source

smp = pytest.importorskip("segmentation_models_pytorch", reason="the extra [smp] is not installed")
ASKED = SourceOptions(num_classes=3, size=(64, 96))


def test_a_network_with_weights_answers_as_the_librarys_own(tmp_path: Path) -> None:
    theirs = smp.Unet("resnet18", encoder_weights=None, classes=3).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    loaded = load_source(
        "smp:Unet/resnet18", SourceOptions(num_classes=3, size=(64, 96), weights=tmp_path / "w.safetensors")
    )
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(loaded.module.eval()(images), theirs(images))
    assert (loaded.task.kind, loaded.task.decode, loaded.brings_weights) == ("segment", "segment", True)
    assert (loaded.preprocess.height, loaded.preprocess.width) == (64, 96)


@pytest.mark.parametrize("name", ["smp:FPN/resnet18", "smp:DeepLabV3Plus/mobilenet_v2"])
def test_it_is_pruned_and_exported(tmp_path: Path, name: str) -> None:
    loaded = load_source(name, ASKED)
    before = ef.count_parameters(loaded.module)
    ef.apply_plan(loaded.module, ef.plan_pruning(loaded.module.eval(), loaded.example_inputs()))
    assert ef.count_parameters(loaded.module) < before / 2
    path = ef.export_onnx(loaded.module, tmp_path / "net.onnx", batch=1, image_size=(64, 96))
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = loaded.module(images).numpy()
    (found,) = run_onnx(path, {"images": images.numpy()}).values()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_its_architectures_are_listed() -> None:
    assert {"smp:unet/resnet18", "smp:fpn/resnet18"} <= set(known_names())


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("smp:Unet", UsageError, r"smp:Unet; allowed: smp:ARCH/ENCODER; write smp:Unet/resnet18"),
        ("smp:Unnet/resnet18", UnknownNameError, r"smp architecture 'Unnet'.*did you mean 'unet'"),
        ("smp:Unet/resnet17", UnknownNameError, r"smp encoder 'resnet17'.*did you mean 'resnet1"),
        ("smp:Unet/tu-no_such_net", ModelError, r"smp cannot build smp:Unet/tu-no_such_net \("),
    ],
)
def test_a_wrong_name_is_one_line(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        load_source(text)
    assert "\n" not in str(caught.value)
