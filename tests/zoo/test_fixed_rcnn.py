"""R-CNNs of fixed shapes find what torchvision's own find, and are exported, pruned and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eightfold as ef
from eightfold.calib.images.geometry import Placement
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.object_results import InstanceMasks
from eightfold.zoo.fixed_rcnn import FixedRcnn, fixed_rcnn_names, fixed_rcnn_task
from tests.zoo.tiny_rcnn import SIDE, tiny_rcnn

RULES = Preprocess(height=SIDE, width=SIDE)
WHOLE = Placement((SIDE, SIDE), (SIDE, SIDE), (0, 0), (SIDE, SIDE))


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("masks", [False, True])
def test_the_same_detections(masks: bool, few: bool) -> None:
    detector = tiny_rcnn(masks=masks, seed=2)
    with torch.no_grad():
        if few:  # fewer than there are rows
            detector.roi_heads.score_thresh = float(detector(list(images()))[0]["scores"][7])
        expected, found = detector(list(images())), FixedRcnn(detector).eval()(images())
    for index, one in enumerate(expected):
        rows, count = found["detections"][index], len(one["scores"])
        assert 0 < count <= (12 if few else 20)
        assert (rows[:, 4] > 0).sum() == count
        torch.testing.assert_close(rows[:count, :4], one["boxes"])
        torch.testing.assert_close(rows[:count, 4], one["scores"])
        torch.testing.assert_close(rows[:count, 5], one["labels"].float() - 1)
        assert not rows[count:].any()
    if masks:
        _same_masks(found, expected)


def _same_masks(found: dict[str, torch.Tensor], expected: list[dict[str, Any]]) -> None:
    """Probabilities are theirs before they paste them; pasted pixels are those of Detectron2's `_do_paste_mask`."""
    decode = decoder_of(Task(kind="detect", decode="rcnn-masks", options={"score_threshold": 0}))
    answers = decode({name: tensor.numpy() for name, tensor in found.items()}, [WHOLE] * len(expected))
    for answer, one, maps in zip(answers, expected, found["masks"], strict=True):
        assert isinstance(answer, InstanceMasks)
        seen = np.stack([answer.mask(index, (SIDE, SIDE)) for index in range(len(answer))])
        torch.testing.assert_close(maps[: len(answer)], one["masks"][:, 0])
        assert (seen != pasted(maps[: len(answer)], one["boxes"])).mean() < 1e-4


def pasted(maps: torch.Tensor, boxes: torch.Tensor) -> Any:
    """(n, h, w) probabilities over (n, 4) boxes -> (n, SIDE, SIDE) bool."""
    centres = torch.arange(SIDE) + 0.5
    x = (centres - boxes[:, :1]) / (boxes[:, 2:3] - boxes[:, :1]) * 2 - 1
    y = (centres - boxes[:, 1:2]) / (boxes[:, 3:] - boxes[:, 1:2]) * 2 - 1
    shape = len(boxes), SIDE, SIDE
    grid = torch.stack((x[:, None].expand(shape), y[:, :, None].expand(shape)), dim=3)
    values = torch.nn.functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
    # Beyond a box the values fade within a cell.
    pixels = torch.arange(SIDE)
    inside_x, inside_y = ((pixels >= boxes[:, at, None]) & (pixels < boxes[:, at + 2, None]) for at in (0, 1))
    inside = inside_x[:, None] & inside_y[:, :, None]
    return ((values > 0.5) & inside).numpy()


def test_masks_of_a_letterboxed_image() -> None:
    """The left half of a box, whose upper edge lies above the image."""
    placement = Preprocess(height=64, width=64, resize="letterbox").place(30, 60)
    maps = np.where(np.arange(8) < 4, 1, 0)[None, None, None].repeat(8, axis=2).astype(np.float32)
    rows = np.array([[[0, 0, 64, 32, 0.9, 0]]], np.float32)
    (found,) = decoder_of(Task(kind="detect", decode="rcnn-masks"))({"rows": rows, "maps": maps}, [placement])
    assert isinstance(found, InstanceMasks)
    assert found.boxes.tolist() == [[0, 0, 60, 15]]
    (mask,) = found.masks
    assert mask.shape == (15, 60)
    assert mask[5].tolist() == [True] * 30 + [False] * 30


def test_a_bundle_of_an_rcnn(tmp_path: Path) -> None:
    network = FixedRcnn(tiny_rcnn(masks=True, seed=2)).eval()
    task = fixed_rcnn_task("maskrcnn_resnet50_fpn")
    before = sum(parameter.numel() for parameter in network.parameters())
    ef.prune(network, (images(1),), keep_ratio=0.5)
    assert sum(parameter.numel() for parameter in network.parameters()) < 0.6 * before
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    ef.export_bundle(network, tmp_path / "bundle", preprocess=RULES, task=task)
    with ef.Predictor(tmp_path / "bundle") as predictor:
        answer = predictor.predict(pixels[0])
        [outputs] = {tuple(spec.shape for spec in each.outputs) for each in predictor.bundle.manifest.artifacts[:1]}
    assert outputs == ((1, 20, 6), (1, 20, 28, 28))
    with torch.no_grad():
        expected = network(torch.from_numpy(RULES(pixels[0]))[None])["detections"][0]
    assert len(answer) == int((expected[:, 4] > 0.05).sum())
    np.testing.assert_allclose(answer.scores, expected[: len(answer), 4], atol=1e-4)


@pytest.mark.parametrize("target", ["tensorrt:8.2", "rtx:sm86"])
def test_a_target_without_roi_align_is_refused_by_name(tmp_path: Path, target: str) -> None:
    network = FixedRcnn(tiny_rcnn()).eval()
    with pytest.raises(
        ModelError, match=rf"{target} has no RoiAlign, which the network needs; allowed: .*TensorRT 8\.5"
    ):
        ef.export_bundle(
            network, tmp_path / "b", preprocess=RULES, task=fixed_rcnn_task("fasterrcnn"), targets=[target]
        )
    assert not (tmp_path / "b").exists()


def test_names_of_torchvision() -> None:
    assert "maskrcnn_resnet50_fpn_v2" in fixed_rcnn_names()
    assert "keypointrcnn_resnet50_fpn" not in fixed_rcnn_names()
