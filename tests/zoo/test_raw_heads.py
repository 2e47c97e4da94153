"""Raw heads and their decoders find what torchvision's own detectors find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from eightfold.calib.images.geometry import Placement
from eightfold.errors import ModelError
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Detections
from eightfold.zoo.raw_heads import RawHead, raw_head_names, raw_head_task
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source, source_of

CLASSES = 3
# name -> the side of its images, and what makes torchvision leave them at that size
NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "ssdlite320_mobilenet_v3_large": (320, {}),
    "ssd300_vgg16": (300, {}),
    "retinanet_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
    "fcos_resnet50_fpn": (128, {"min_size": 128, "max_size": 128}),
}


def detector(name: str, background: int, settings: dict[str, Any]) -> nn.Module:
    """With random weights whose scores differ: untrained, all values are as good as equal behind many layers, or so
    large without norms that every score is 1."""
    torch.manual_seed(0)
    made: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=CLASSES + background, **settings)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        if name != "ssd300_vgg16":
            made.train()
            RawHead(made)(torch.randn(2, 3, 320, 320))
        for key, parameter in made.get_submodule("head").named_parameters():
            if "cls_logits.bias" in key:
                parameter.fill_(-1.0)
            elif name == "ssd300_vgg16":
                parameter.mul_(0.01)
    return made.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_decoder_finds_what_torchvision_finds(name: str) -> None:
    side, settings = NETWORKS[name]
    background = int(name.startswith("ssd"))
    whole = detector(name, background, settings)
    raw = load_source(name, SourceOptions(num_classes=CLASSES)).module
    raw.load_state_dict(whole.state_dict())
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (expected,) = whole([image])
        prepared, _ = whole.get_submodule("transform")([image])
        outputs = {key: tensor.numpy() for key, tensor in raw.eval()(prepared.tensors).items()}
    size = side, side
    (found,) = decoder_of(source_of(name).task(name, size))(outputs, [Placement(size, size, (0, 0), size)])
    assert isinstance(found, Detections)
    assert len(found) == len(expected["scores"]) > 10
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=0.02)
    np.testing.assert_array_equal(found.classes + background, expected["labels"])


def test_every_single_shot_detector_of_torchvision_is_known() -> None:
    assert set(NETWORKS) <= set(raw_head_names())
    for name in raw_head_names():
        task = raw_head_task(name, (320, 416))
        decoder_of(task)
        assert len(task.options["grids"]) >= 5, name


def test_images_that_are_too_small() -> None:
    with pytest.raises(
        ModelError, match=r"ssd300_vgg16 does not run on images of 64x96 \(.*\); allowed: larger images"
    ):
        raw_head_task("ssd300_vgg16", (64, 96))


def test_a_raw_head_has_the_names_of_the_whole() -> None:
    whole = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    assert list(RawHead(whole).state_dict()) == list(whole.state_dict())
