"""Vision models of transformers from local folders: against the library's own answers and image processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eightfold as ef
from eightfold.errors import ModelError, UsageError
from eightfold.export.verify.verify import run_onnx
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source

transformers = pytest.importorskip("transformers", reason="the extra [hf] is not installed")
SIDE = 64
PROCESSOR = {
    "do_resize": True, "size": {"height": SIDE, "width": SIDE}, "resample": 3, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25],
}  # fmt: skip


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A ViT of three layers with its processor, as save_pretrained writes it."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE,
        patch_size=16, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    return saved(transformers.ViTForImageClassification(config), tmp_path / "vit", PROCESSOR)


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 32, 32], num_attention_heads=[1, 2, 2, 2],
        decoder_hidden_size=32, num_labels=3,
    )  # fmt: skip
    return saved(transformers.SegformerForSemanticSegmentation(config), tmp_path / "segformer", None)


def saved(model: Any, folder: Path, processor: dict[str, Any] | None) -> Path:
    model.eval().save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_classifier_answers_as_the_librarys_own(classifier: Path) -> None:
    loaded = load_source(f"hf:{classifier}")
    theirs = transformers.ViTForImageClassification.from_pretrained(classifier)
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(loaded.module.eval()(images), theirs(pixel_values=images).logits)
    assert (loaded.task.kind, loaded.task.labels, loaded.brings_weights) == ("classify", ("cat", "dog"), True)


def test_its_preprocessing_is_that_of_its_processor(classifier: Path) -> None:
    found = load_source(f"hf:{classifier}").preprocess
    assert (found.height, found.width, found.resize, found.interpolation) == (SIDE, SIDE, "stretch", "bicubic")
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert found.scale == 1 / 255


def test_a_segmenter_gives_its_map_and_takes_another_size(segmenter: Path) -> None:
    loaded = load_source(f"hf:{segmenter}", SourceOptions(size=(SIDE, 96)))
    with torch.no_grad():
        assert loaded.module.eval()(*loaded.example_inputs()).shape == (1, 3, SIDE // 4, 24)
    assert (loaded.task.kind, loaded.task.decode) == ("segment", "segment")


def test_it_is_pruned_and_exported(tmp_path: Path, classifier: Path) -> None:
    loaded = load_source(f"hf:{classifier}")
    before = ef.count_parameters(loaded.module)
    ef.apply_plan(loaded.module, ef.plan_pruning(loaded.module.eval(), loaded.example_inputs()))
    assert ef.count_parameters(loaded.module) < before
    path = ef.export_onnx(loaded.module, tmp_path / "net.onnx", batch=1, image_size=SIDE)
    images = torch.rand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = loaded.module(images).numpy()
    (found,) = run_onnx(path, {"images": images.numpy()}).values()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _of_an_unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchNet"]}))


def _with_broken_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nonsense")


def _with_a_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_without_weights, r"no local folder with config\.json and model\.safetensors.*nothing is downloaded"),
        (_of_an_unknown_architecture, r"config\.json names the architecture 'NoSuchNet'"),
        (_with_broken_weights, r"transformers cannot load .*allowed: a complete folder"),
        (_with_a_broken_config, r"cannot read .*config\.json"),
    ],
)
def test_a_damaged_folder_is_one_line(classifier: Path, damage: Any, words: str) -> None:
    damage(classifier)
    with pytest.raises(ModelError, match=words) as caught:
        load_source(f"hf:{classifier}")
    assert "\n" not in str(caught.value)


def test_it_has_its_own_weights_and_classes(classifier: Path) -> None:
    with pytest.raises(UsageError, match="this one has its own"):
        load_source(f"hf:{classifier}", SourceOptions(num_classes=5))
