"""Every decoder with outputs of a random network: what the runtimes must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.cpp.networks import Spread

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


SHOWN = (
    "activation",
    "agnostic",
    "box",
    "multi_label",
    "nms",
    "objectness",
    "reg_max",
    "soft_sigma",
    "channels_last",
    "class_scores",
)
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


def with_more(spread: Spread, mean: Any, std: Any) -> Spread:
    """Of further values behind the classes of (channels, N) rows."""
    means, stds = (np.array(value, np.float64)[:, None] for value in (mean, std))
    return Spread(np.concatenate((spread.mean, means)), np.concatenate((spread.std, stds)))


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
    Case(
        "detect",
        "yolo-anchors",
        maps(2 * 9),
        {"anchors": [[[10, 13], [16, 30]]] * 3, "class_scores": "softmax", "score_threshold": 0.3},
        LETTERBOX,
    ),
    Case(
        "detect",
        "yolo-grid",
        {"output": (49 * (4 + 2 * 5),)},
        {"side": 7, "boxes": 2, "classes": 4, "score_threshold": 0.3},
        LETTERBOX,
        {"output": Spread(0.5, 0.2)},
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
    Case(
        "detect",
        "rcnn-masks",
        {"detections": (20, 6), "masks": (20, 14, 14)},
        {"mask_threshold": 0.4},
        LETTERBOX,
        {"detections": END_TO_END, "masks": Spread(0.5, 0.3)},
    ),
    Case(
        "detect",
        "yolo-masks",
        {"output0": (9 + 8, 60), "output1": (8, 16, 16)},
        {},
        LETTERBOX,
        {"output0": with_more(box_spread(9), [0] * 8, [1] * 8)},
    ),
    Case(
        "detect",
        "yolo-masks",
        {"prototypes": (4, 24, 20), "rows": (9 + 4, 60)},
        {"multi_label": True, "score_threshold": 0.8},
        {"resize": "center-crop"},
        {"rows": with_more(box_spread(9), [0] * 4, [1] * 4)},
    ),
    Case(
        "detect",
        "yolo-keypoints",
        {"output0": (9 + 12, 60)},
        {"keypoints": 4},
        LETTERBOX,
        {"output0": with_more(box_spread(9), [32, 32, 0.5] * 4, [20, 20, 0.3] * 4)},
    ),
    Case(
        "detect",
        "yolo-keypoints",
        {"output0": (9 + 6, 60)},
        {"keypoints": 3, "dimensions": 2, "normalized": True, "soft_sigma": 0.5},
        spreads={"output0": with_more(box_spread(9, unit=1 / SIDE), [0.5] * 6, [0.3] * 6)},
    ),
    Case(
        "detect",
        "yolo-oriented",
        {"output0": (9 + 1, 84)},
        {"score_threshold": 0.6},
        LETTERBOX,
        {"output0": with_more(box_spread(9), [0.8], [1])},
    ),
    Case(
        "detect",
        "yolo-oriented",
        {"output0": (9 + 1, 84)},
        {"agnostic": True, "iou_threshold": 0.3},
        {"resize": "center-crop"},
        {"output0": with_more(box_spread(9), [0.8], [1])},
    ),
    Case("segment", "segment", {"scores": (5, 16, 16)}, {}, LETTERBOX),
    Case("segment", "segment", {"scores": (1, 64, 64)}, {"threshold": 0.2}, {"resize": "center-crop"}),
    Case("matte", "matte", {"alpha": (1, 64, 64), "other": (3,)}, {}, LETTERBOX),
    Case("matte", "matte", {"other": (3,), "alpha": (1, 16, 24)}, {"output": "alpha"}, {"resize": "center-crop"}),
    Case("tensors", "depth", {"depth": (64, 64)}, {}, LETTERBOX),
    Case("tensors", "depth", {"other": (3,), "depth": (1, 16, 24)}, {"output": "depth"}, {"resize": "center-crop"}),
    Case("tensors", "picture", {"picture": (3, 64, 64)}, {}, LETTERBOX, {"picture": Spread(0.5, 0.3)}),
    Case(
        "tensors",
        "picture",
        {"picture": (3, 128, 192), "other": (3,)},
        {"output": "picture", "scale": 1},
        {"resize": "center-crop"},
        {"picture": Spread(128, 90)},
    ),
]
