"""SSD, RetinaNet and FCOS against torchvision's own post-processing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection import FCOS, RetinaNet, ssd
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.runtime.postprocess import anchor_heads
from eightfold.runtime.postprocess.results import Detections

SIZE = (96, 128)
IDENTITY = Placement(SIZE, SIZE, (0, 0), SIZE)
GRIDS = ((12, 16), (6, 8))
CLASSES = 4


def raw_head(per_cell: int, classes: int, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    count = per_cell * sum(height * width for height, width in GRIDS)
    return {"cls_logits": 2 * torch.randn(1, count, classes) - 2, "bbox_regression": torch.randn(1, count, 4)}


def by_level(head: dict[str, torch.Tensor], per_cell: int) -> dict[str, list[torch.Tensor]]:
    sizes = [height * width * per_cell for height, width in GRIDS]
    return {name: list(torch.split(each, sizes, dim=1)) for name, each in head.items()}


def maps() -> tuple[ImageList, list[torch.Tensor]]:
    return ImageList(torch.zeros(1, 3, *SIZE), [SIZE]), [torch.zeros(1, 1, *grid) for grid in GRIDS]


def numpy(head: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: each.numpy() for name, each in head.items()}


def assert_same(found: Detections, expected: dict[str, torch.Tensor], first_class: int = 0) -> None:
    assert len(found) == len(expected["scores"]) > 10
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=2e-3)
    np.testing.assert_array_equal(found.classes + first_class, expected["labels"])


def test_ssd() -> None:
    generator = DefaultBoxGenerator([[2], [2, 3]], scales=[0.1, 0.3, 0.6], steps=[8, 16])
    per_level = [a * height * width for a, (height, width) in zip((4, 6), GRIDS, strict=True)]
    torch.manual_seed(1)
    head = {
        "cls_logits": 2 * torch.randn(1, sum(per_level), CLASSES + 1),
        "bbox_regression": torch.randn(1, sum(per_level), 4),
    }
    settings = SimpleNamespace(
        box_coder=BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)),
        score_thresh=0.01,
        topk_candidates=50,
        nms_thresh=0.45,
        detections_per_img=200,
    )
    anchors = generator(*maps())
    (expected,) = ssd.SSD.postprocess_detections(settings, head, anchors, [SIZE])
    decoder = anchor_heads.Ssd(
        grids=GRIDS, aspect_ratios=((2,), (2, 3)), scales=(0.1, 0.3, 0.6), steps=(8, 16), class_candidates=50
    )
    np.testing.assert_allclose(decoder.anchors(SIZE), anchors[0], atol=1e-4)
    assert_same(decoder(numpy(head), [IDENTITY])[0], expected, first_class=1)


def test_default_boxes_without_steps() -> None:
    generator = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.5, 1.2], clip=False)
    decoder = anchor_heads.Ssd(grids=GRIDS, aspect_ratios=((2,), (2,)), scales=(0.2, 0.5, 1.2), clip=False)
    np.testing.assert_allclose(decoder.anchors(SIZE), generator(*maps())[0], atol=1e-4)


def test_retinanet() -> None:
    sizes, ratios = ((8, 10.1, 12.7), (16, 20.2, 25.4)), ((0.5, 1.0, 2.0),) * 2
    head = raw_head(9, CLASSES)
    generator = AnchorGenerator(sizes, ratios)
    anchors = [list(generator(*maps())[0].split([9 * height * width for height, width in GRIDS]))]
    settings = SimpleNamespace(
        box_coder=BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)),
        score_thresh=0.05,
        topk_candidates=100,
        nms_thresh=0.5,
        detections_per_img=300,
    )
    (expected,) = RetinaNet.postprocess_detections(settings, by_level(head, 9), anchors, [SIZE])
    decoder = anchor_heads.RetinaNet(grids=GRIDS, sizes=sizes, aspect_ratios=ratios, level_candidates=100)
    np.testing.assert_allclose(decoder.anchors(SIZE), torch.cat(anchors[0]), atol=1e-5)
    assert_same(decoder(numpy(head), [IDENTITY])[0], expected)


def test_fcos() -> None:
    sizes = ((8,), (16,))
    head = raw_head(1, CLASSES)
    head["bbox_regression"] = head["bbox_regression"].abs() * 2
    head["bbox_ctrness"] = torch.randn(1, head["cls_logits"].shape[1], 1) + 1
    generator = AnchorGenerator(sizes, ((1.0,),) * 2)
    anchors = [list(generator(*maps())[0].split([height * width for height, width in GRIDS]))]
    settings = SimpleNamespace(
        box_coder=BoxLinearCoder(normalize_by_size=True),
        score_thresh=0.2,
        topk_candidates=60,
        nms_thresh=0.6,
        detections_per_img=100,
    )
    (expected,) = FCOS.postprocess_detections(settings, by_level(head, 1), anchors, [SIZE])
    decoder = anchor_heads.Fcos(grids=GRIDS, sizes=sizes, level_candidates=60)
    assert_same(decoder(numpy(head), [IDENTITY])[0], expected)


def outputs(count: int) -> dict[str, Array]:
    return {"cls_logits": np.zeros((1, count, 2), np.float32), "bbox_regression": np.zeros((1, count, 4), np.float32)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (outputs(7), "the options give 240 anchors; allowed: 7, as the scores"),
        ({"cls_logits": np.zeros((1, 240, 2), np.float32)}, "wants output 'bbox_regression'; allowed: cls_logits"),
        (outputs(240) | {"bbox_regression": np.zeros((1, 240, 5), np.float32)}, r"allowed: \(240, 4\)"),
    ],
)
def test_outputs_that_do_not_fit(given: Any, message: str) -> None:
    decoder = anchor_heads.RetinaNet(grids=GRIDS, sizes=((8,), (16,)), aspect_ratios=((1.0,),) * 2)
    with pytest.raises(BundleError, match=message):
        decoder(given, [IDENTITY])
