"""The C++ runtime gives the answers of the Python one: every decoder on fifty pictures."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact, Task
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.results import Classification, Detections, Matte, Segmentation
from tests.cpp.native import NativeEngine, NativeResult
from tests.cpp.networks import Spread

MakeBundle = Callable[..., Path]
IMAGES = 50
SIDE = 64


@dataclass(frozen=True)
class Case:
    kind: str
    decode: str
    outputs: Mapping[str, tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    spreads: dict[str, Spread] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.decode, *(f"{name}={value}" for name, value in self.options.items() if name in SHOWN)])


SHOWN = ("activation", "agnostic", "box", "multi_label", "nms", "objectness", "reg_max", "soft_sigma", "channels_last")
OF_MAPS = ("fcos", "retinanet", "ssd", "yolo-anchors", "yolo-dfl")
SCALES = {"p3": 8, "p4": 4, "p5": 2}
LETTERBOX = {"resize": "letterbox"}
GRIDS = [[8, 8], [4, 4]]
ANCHOR_OUTPUTS = {"cls_logits": (8 * 8 * 3 + 4 * 4 * 3, 5), "bbox_regression": (8 * 8 * 3 + 4 * 4 * 3, 4)}


def box_spread(channels: int, *, last: bool = False, unit: float = 1.0) -> Spread:
    """cx, cy, w, h in the middle of the tensor, then scores about 0.5."""
    mean = np.array([32, 32, 24, 24] + [0.5] * (channels - 4)) * ([unit] * 4 + [1] * (channels - 4))
    std = np.array([14, 14, 8, 8] + [0.3] * (channels - 4)) * ([unit] * 4 + [1] * (channels - 4))
    return Spread(mean, std) if last else Spread(mean[:, None], std[:, None])


END_TO_END = Spread([16, 16, 48, 48, 0.5, 2], [8, 8, 8, 8, 0.3, 1])


def maps(channels: int) -> dict[str, tuple[int, ...]]:
    return {name: (channels, side, side) for name, side in SCALES.items()}


CASES = [
    Case("classify", "classify", {"logits": (10,)}),
    Case("classify", "classify", {"logits": (10, 1, 1)}, {"activation": "sigmoid", "k": 3}, {"resize": "center-crop"}),
    Case("classify", "classify", {"logits": (4,)}, {"activation": "none", "k": 9}, {"interpolation": "area"}),
    Case("detect", "yolo-boxes", {"output0": (9, 84)}, {"score_threshold": 0.6}, LETTERBOX, {"output0": box_spread(9)}),
    Case(
        "detect",
        "yolo-boxes",
        {"output0": (84, 10)},
        {"channels_last": True, "objectness": True, "agnostic": True},
        spreads={"output0": box_spread(10, last=True)},
    ),
    Case(
        "detect",
        "yolo-boxes",
        {"output0": (9, 84)},
        {"multi_label": True, "normalized": True, "soft_sigma": 0.5},
        spreads={"output0": box_spread(9, unit=1 / SIDE)},
    ),
    Case("detect", "yolo-dfl", maps(64 + 6), {"score_threshold": 0.7}, LETTERBOX),
    Case("detect", "yolo-dfl", maps(4 + 6), {"reg_max": 1, "nms": False, "multi_label": True}, LETTERBOX),
    Case("detect", "yolo-dfl", maps(32 + 6), {"reg_max": 8, "soft_sigma": 0.3}, LETTERBOX | {"anchor": "top-left"}),
    Case(
        "detect",
        "yolo-anchors",
        maps(3 * 9),
        {"anchors": [[[10, 13], [16, 30], [33, 23]]] * 3, "scale_xy": [1.2, 1.1, 1.05], "score_threshold": 0.4},
        LETTERBOX,
    ),
    Case(
        "detect",
        "yolo-anchors",
        maps(2 * 9),
        {"anchors": [[[10, 13], [16, 30]]] * 3, "box": "sigmoid", "scale_xy": 2, "multi_label": True},
        LETTERBOX,
    ),
    Case("detect", "end-to-end", {"output0": (30, 6)}, {"score_threshold": 0.5}, LETTERBOX, {"output0": END_TO_END}),
    Case(
        "detect",
        "ssd",
        {"bbox_regression": (8 * 8 * 6 + 4 * 4 * 4, 4), "cls_logits": (8 * 8 * 6 + 4 * 4 * 4, 4)},
        {"grids": GRIDS, "aspect_ratios": [[2, 3], [2]], "scales": [0.2, 0.5, 0.9], "score_threshold": 0.3},
    ),
    Case(
        "detect",
        "ssd",
        {"boxes": (8 * 8 * 4 + 4 * 4 * 4, 4), "scores": (8 * 8 * 4 + 4 * 4 * 4, 4)},
        {
            "grids": GRIDS,
            "aspect_ratios": [[2], [2]],
            "scales": [0.2, 0.5, 1.1],
            "steps": [8, 16],
            "clip": False,
            "class_candidates": 20,
            "boxes_output": "boxes",
            "scores_output": "scores",
        },
    ),
    Case(
        "detect",
        "retinanet",
        ANCHOR_OUTPUTS,
        {"grids": GRIDS, "sizes": [[8], [16]], "aspect_ratios": [[0.5, 1, 2]] * 2, "level_candidates": 50},
        LETTERBOX,
    ),
    Case(
        "detect",
        "fcos",
        {"cls_logits": (80, 5), "bbox_regression": (80, 4), "bbox_ctrness": (80, 1)},
        {"grids": GRIDS, "sizes": [[8], [16]]},
        LETTERBOX,
    ),
    Case("segment", "segment", {"scores": (5, 16, 16)}, {}, LETTERBOX),
    Case("segment", "segment", {"scores": (1, 64, 64)}, {"threshold": 0.2}, {"resize": "center-crop"}),
    Case("matte", "matte", {"alpha": (1, 64, 64), "other": (3,)}, {}, LETTERBOX),
    Case("matte", "matte", {"other": (3,), "alpha": (1, 16, 24)}, {"output": "alpha"}, {"resize": "center-crop"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_answers(library: ctypes.CDLL, make_bundle: MakeBundle, case: Case) -> None:
    preprocess = Preprocess(**{"height": SIDE, "width": SIDE, "mean": (0.5,), "std": (0.25,)} | case.preprocess)
    task = Task(kind=case.kind, decode=case.decode, options=case.options)
    path = make_bundle(preprocess, task, case.outputs, batches=(1, 4), spreads=case.spreads)
    pictures = [picture(index) for index in range(IMAGES)]
    bundle = Bundle.open(path)
    expected = predictions_of(bundle, bundle.manifest.artifacts[0], pictures)
    actual = NativeEngine(library, path, threads=1).run(pictures)
    assert len(actual) == len(expected) == IMAGES
    for index, answer in enumerate(expected):
        compare(answer, actual, index)
    assert any(meaningful(answer) for answer in expected), "the case tests nothing"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_answers_at_each_size_of_a_bundle(library: ctypes.CDLL, make_bundle: MakeBundle, case: Case) -> None:
    preprocess = Preprocess(**{"height": SIDE, "width": SIDE, "mean": (0.5,), "std": (0.25,)} | case.preprocess)
    task = Task(kind=case.kind, decode=case.decode, options=case.options)
    # Maps of a detector's levels have as many cells here as at the default size.
    other = (2 * SIDE, 2 * SIDE) if case.decode in OF_MAPS else (48, 80)
    sizes = (other, (SIDE, SIDE))
    path = make_bundle(preprocess, task, case.outputs, batches=(1, 4), spreads=case.spreads, sizes=sizes)
    pictures, bundle = [picture(index) for index in range(10)], Bundle.open(path)
    for artifact in bundle.manifest.artifacts[::2]:
        height, width = artifact.image_size(preprocess.layout) or (0, 0)
        expected = predictions_of(bundle, artifact, pictures)
        actual = NativeEngine(library, path, threads=1, height=height, width=width).run(pictures)
        for index, answer in enumerate(expected):
            compare(answer, actual, index)
        assert any(meaningful(answer) for answer in expected), "the case tests nothing"


def picture(index: int) -> NDArray[np.uint8]:
    """Blocks of colour with noise, of a size of its own."""
    random = np.random.default_rng(index)
    height, width = (int(side) for side in random.integers(20, 200, 2))
    blocks = random.integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    noise = random.integers(-20, 20, (height, width, 3))
    return np.asarray(np.clip(blocks[rows][:, columns] + noise, 0, 255), np.uint8)


def predictions_of(bundle: Bundle, artifact: Artifact, pictures: list[NDArray[np.uint8]]) -> list[Any]:
    """As Predictor, but with the reference preprocessing, which the C++ runtime follows to the last bit."""
    preprocess, decode = bundle.manifest.preprocess_of(artifact), decoder_of(bundle.manifest.task)
    path = bundle.artifact_path(artifact)
    slot = open_session(path, "onnxruntime", SessionOptions(threads=1)).new_slot()
    answers: list[Any] = []
    for pixels in pictures:
        slot.inputs["images"][0] = preprocess.reference(pixels)
        slot.run()
        answers += decode(slot.outputs, [preprocess.place(*pixels.shape[:2])])
    return answers


def meaningful(answer: Any) -> bool:
    if isinstance(answer, Detections):
        return len(answer) > 1
    if isinstance(answer, Segmentation):
        return len(np.unique(answer.classes)) > 1
    return True


def compare(expected: Any, actual: NativeResult, index: int) -> None:
    if isinstance(expected, Classification):
        assert [each.index for each in expected.top] == [label for label, _ in actual.classes(index)]
        np.testing.assert_allclose(
            [each.probability for each in expected.top], [score for _, score in actual.classes(index)], atol=1e-4
        )
    elif isinstance(expected, Detections):
        detections = actual.detections(index)
        assert len(detections) == len(expected)
        np.testing.assert_array_equal(detections[:, 5], expected.classes)
        np.testing.assert_allclose(detections[:, 4], expected.scores, atol=1e-4)
        np.testing.assert_allclose(detections[:, :4], expected.boxes, atol=0.01)
    elif isinstance(expected, Segmentation):
        np.testing.assert_array_equal(actual.segments(index), expected.classes.ravel())
    else:
        assert isinstance(expected, Matte)
        np.testing.assert_allclose(actual.alpha(index), expected.alpha.ravel(), atol=1e-6)
