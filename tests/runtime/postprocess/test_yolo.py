"""YOLO decoders against ultralytics, and against a loop in float64 where ultralytics has no such head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from eightfold.arrays import Array
from eightfold.calib.images.geometry import Placement
from eightfold.errors import BundleError
from eightfold.runtime.postprocess.results import Detections
from eightfold.runtime.postprocess.yolo import EndToEnd, YoloAnchors, YoloBoxes, YoloDfl

SIZE = (96, 128)
# The image is the tensor, so that boxes come back as they are, but for the clipping at the border.
IDENTITY = Placement(SIZE, SIZE, (0, 0), SIZE)


def head_output(seed: int, classes: int = 5, count: int = 252) -> Array:
    """(1, 4 + classes, count): boxes that overlap often, scores of which about a quarter pass 0.25."""
    random = np.random.default_rng(seed)
    output = random.random((1, 4 + classes, count)).astype(np.float32)
    output[0, 0] *= SIZE[1]
    output[0, 1] *= SIZE[0]
    output[0, 2:4] = 10 + 30 * output[0, 2:4]
    output[0, 4:] **= 8
    return output


def suppressed_by_ultralytics(output: Array, **options: Any) -> Array:
    from ultralytics.utils.nms import non_max_suppression

    # x, y, x, y, score, class; clipped as eightfold does after suppression
    (found,) = non_max_suppression(torch.tensor(output), **options)
    rows: Array = found.numpy()
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, SIZE[1])
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, SIZE[0])
    return rows


def assert_same(found: Detections, expected: Array) -> None:
    """The same detections in the same order, but for neighbours whose scores differ by rounding only."""
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-6)
    rows = np.column_stack([found.boxes, found.scores, found.classes])
    np.testing.assert_allclose(_in_order(rows, expected) if len(rows) else rows, expected, atol=1e-3)


def _in_order(rows: Array, like: Array) -> Array:
    """`rows`, each at the place of the row of `like` that is nearest to it."""
    distance = np.abs(rows[:, None] - like[None]).max(axis=2)
    nearest = distance.argmin(axis=0)
    assert len(set(nearest.tolist())) == len(rows)
    return np.asarray(rows[nearest])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_match_ultralytics(seed: int, multi_label: bool, agnostic: bool) -> None:
    output = head_output(seed)
    (found,) = YoloBoxes(multi_label=multi_label, agnostic=agnostic)({"output0": output}, [IDENTITY])
    assert_same(found, suppressed_by_ultralytics(output, multi_label=multi_label, agnostic=agnostic))
    assert len(found) > 10


def test_max_detections_and_thresholds_match_ultralytics() -> None:
    output = head_output(7)
    decoder = YoloBoxes(score_threshold=0.1, iou_threshold=0.7, max_detections=9)
    (found,) = decoder({"output0": output}, [IDENTITY])
    assert_same(found, suppressed_by_ultralytics(output, conf_thres=0.1, iou_thres=0.7, max_det=9))


def test_boxes_turned_round_normalized_and_with_objectness() -> None:
    output = head_output(3)
    (plain,) = YoloBoxes()({"o": output}, [IDENTITY])
    (turned,) = YoloBoxes(channels_last=True)({"o": output.transpose(0, 2, 1)}, [IDENTITY])
    scaled = output.copy()
    scaled[0, :4] /= np.array([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])[:, None]
    (normalized,) = YoloBoxes(normalized=True)({"o": scaled}, [IDENTITY])
    with_objectness = np.insert(output, 4, 0.5, axis=1)
    with_objectness[:, 5:] *= 2
    (weighed,) = YoloBoxes(objectness=True)({"o": with_objectness}, [IDENTITY])
    for other in (turned, normalized, weighed):
        np.testing.assert_allclose(other.boxes, plain.boxes, atol=1e-3)
        np.testing.assert_allclose(other.scores, plain.scores, atol=1e-6)


def test_only_rows_with_an_image_are_decoded() -> None:
    output = np.concatenate([head_output(0), head_output(1), head_output(2)])
    found = YoloBoxes()({"o": output}, [IDENTITY, IDENTITY])
    assert [len(each) for each in found] == [len(YoloBoxes()({"o": output[i : i + 1]}, [IDENTITY])[0]) for i in (0, 1)]


def test_boxes_come_back_in_image_coordinates() -> None:
    letterboxed = Placement(source=(200, 400), resized=(64, 128), offset=(16, 0), tensor=SIZE)
    output = np.zeros((1, 5, 1), np.float32)
    output[0, :, 0] = (64, 48, 32, 32, 0.9)
    (found,) = YoloBoxes(labels=("cat",))({"o": output}, [letterboxed])
    np.testing.assert_allclose(found.boxes, [[150, 50, 250, 150]])
    assert found.to_dict()["objects"][0]["label"] == "cat"
    assert str(found) == "1 cat: cat 90.0% [150 50 250 150]"


def test_a_line_names_the_best_of_many_and_counts_all() -> None:
    scores = np.linspace(0.9, 0.1, 14).astype(np.float32)
    many = Detections(np.zeros((14, 4), np.float32), scores, np.zeros(14, np.int64), ("cat",) * 13 + ("dog",))
    assert str(many).startswith("13 cat, 1 dog: cat 90.0% [0 0 0 0], ")
    assert str(many).endswith(", 4 more")


def test_nothing_found() -> None:
    (found,) = YoloBoxes()({"o": np.zeros((1, 84, 100), np.float32)}, [IDENTITY])
    assert (len(found), found.boxes.shape, str(found)) == (0, (0, 4), "nothing found")


def raw_maps(reg_max: int, end_to_end: bool = False) -> tuple[Any, dict[str, Array], torch.Tensor]:
    """ultralytics' head, the maps that it convolves to, and what it decodes them to, (1, 4 + classes, N)."""
    from ultralytics.nn.modules.head import Detect

    torch.manual_seed(0)
    head = Detect(nc=5, reg_max=reg_max, end2end=end_to_end, ch=(8, 8, 8)).eval()
    head.xyxy = end_to_end
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    features = [4 * torch.randn(1, 8, SIZE[0] // s, SIZE[1] // s) for s in (8, 16, 32)]
    with torch.no_grad():
        parts = zip(head.cv2, head.cv3, features, strict=True)
        maps = [torch.cat([torch.relu(8 * box(x)), 20 * score(x) + 2], 1) for box, score, x in parts]
        split = [(each[:, : 4 * reg_max].flatten(2), each[:, 4 * reg_max :].flatten(2)) for each in maps]
        raw = {"boxes": torch.cat([box for box, _ in split], 2), "scores": torch.cat([score for _, score in split], 2)}
        raw_head: dict[str, Any] = raw | {"feats": features}
        return head, {f"p{index}": each.numpy() for index, each in enumerate(maps)}, head._inference(raw_head)


@pytest.mark.parametrize("reg_max", [16, 1])
@pytest.mark.parametrize("multi_label", [False, True])
def test_raw_maps_match_ultralytics_own_head(reg_max: int, multi_label: bool) -> None:
    _, outputs, decoded = raw_maps(reg_max)
    (found,) = YoloDfl(reg_max=reg_max, multi_label=multi_label)(outputs, [IDENTITY])
    assert_same(found, suppressed_by_ultralytics(decoded.numpy(), multi_label=multi_label))
    assert len(found) > 10


@pytest.mark.parametrize("reg_max", [16, 1], ids=["yolov10", "yolo26"])
@pytest.mark.parametrize("limit", [20, 150])  # where scores are further apart than they are exact
def test_raw_maps_of_one_to_one_heads_match_ultralytics_own_choice(reg_max: int, limit: int) -> None:
    head, outputs, decoded = raw_maps(reg_max, end_to_end=True)
    head.max_det = limit
    rows = head.postprocess(decoded.permute(0, 2, 1))[0].numpy()
    rows = rows[rows[:, 4] > 0.25]
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, SIZE[1])
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, SIZE[0])
    decoder = YoloDfl(reg_max=reg_max, nms=False, multi_label=True, max_detections=limit)
    (found,) = decoder(outputs, [IDENTITY])
    assert_same(found, rows)
    assert len(found) > 10


def test_end_to_end_matches_ultralytics() -> None:
    random = np.random.default_rng(0)
    rows = random.random((1, 300, 6)).astype(np.float32)
    rows[..., :4] = np.sort(rows[..., :4] * 90, axis=-1)
    rows[..., 4] = np.sort(rows[..., 4])[..., ::-1]
    rows[..., 5] = random.integers(0, 80, 300)
    (found,) = EndToEnd(max_detections=50)({"o": rows}, [IDENTITY])
    assert_same(found, suppressed_by_ultralytics(rows, max_det=50))


def test_a_class_below_zero_has_no_name() -> None:
    rows = {"o": np.array([[[0, 0, 8, 8, 0.9, -1], [0, 0, 8, 8, 0.8, 1]]], np.float32)}
    (found,) = EndToEnd(labels=("cat", "dog"))(rows, [IDENTITY])
    assert found.labels == ("-1", "dog")


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(value))))


def boxes_by_loop(decoder: YoloAnchors, outputs: dict[str, Array]) -> list[tuple[float, ...]]:
    """The page docs/decoders.md, read aloud: (x1, y1, x2, y2, score, class) of each location's best class."""
    found = []
    for output, anchors in zip(outputs.values(), decoder.anchors, strict=True):
        _, channels, height, width = output.shape
        values = output.reshape(len(anchors), channels // len(anchors), height, width).astype(np.float64)
        factor = decoder.scale_xy if isinstance(decoder.scale_xy, float) else decoder.scale_xy[0]
        for a, y, x in np.ndindex(len(anchors), height, width):
            tx, ty, tw, th, objectness, *classes = values[a, :, y, x]
            best = int(np.argmax(classes))
            score = sigmoid(objectness) * sigmoid(classes[best])
            if score <= decoder.score_threshold:
                continue
            cx = (sigmoid(tx) * factor - (factor - 1) / 2 + x) * SIZE[1] / width
            cy = (sigmoid(ty) * factor - (factor - 1) / 2 + y) * SIZE[0] / height
            grow = (lambda t: (2 * sigmoid(t)) ** 2) if decoder.box == "sigmoid" else np.exp
            w, h = anchors[a][0] * grow(tw), anchors[a][1] * grow(th)
            found.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, score, best))
    return sorted(found, key=lambda row: -row[4])


@pytest.mark.parametrize(
    "options", [{}, {"scale_xy": 1.05}, {"box": "sigmoid", "scale_xy": 2.0}], ids=["yolov3", "yolov4", "yolov5"]
)
def test_anchors_match_the_definition(options: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    anchors = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)))
    outputs = {
        f"p{s}": random.normal(0, 2, (1, 3 * 9, SIZE[0] // s, SIZE[1] // s)).astype(np.float32) for s in (16, 32)
    }
    decoder = YoloAnchors(anchors=anchors, nms=False, max_detections=1000, **options)
    wide = Placement((9600, 12800), (9600, 12800), (0, 0), SIZE)
    unclipped = decoder.candidates({name: each[0] for name, each in outputs.items()}, SIZE).best(1000)
    expected = np.array(boxes_by_loop(decoder, outputs))
    assert len(expected) > 50
    np.testing.assert_allclose(unclipped.boxes, expected[:, :4], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(unclipped.scores, expected[:, 4], atol=1e-5)
    np.testing.assert_array_equal(unclipped.classes, expected[:, 5])
    assert len(decoder(outputs, [wide])[0]) == len(expected)


@pytest.mark.parametrize(
    ("decoder", "outputs", "message"),
    [
        (YoloBoxes(), {"o": np.zeros((1, 3, 10), np.float32)}, r"shape \(3, 10\); allowed: \(4 \+ classes, N\)"),
        (YoloBoxes(), {"a": np.zeros((1, 6, 10)), "b": np.zeros((1, 6, 10))}, "2 outputs where the decoder wants one"),
        (YoloDfl(), {"o": np.zeros((1, 64, 4, 4), np.float32)}, r"output o has shape \(64, 4, 4\)"),
        (EndToEnd(), {"o": np.zeros((1, 300, 7), np.float32)}, r"shape \(300, 7\); allowed: \(K, 6\)"),
        (YoloAnchors(anchors=(((1, 1),),)), {"a": np.zeros((1, 6, 1, 1)), "b": np.zeros((1, 6, 1, 1))}, "for 1 scales"),
        (YoloAnchors(anchors=(((1, 1), (2, 2)),)), {"a": np.zeros((1, 7, 1, 1))}, r"\(2 \* \(5 \+ classes\), H, W\)"),
    ],
)
def test_outputs_that_do_not_fit(decoder: Any, outputs: dict[str, Array], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        decoder(outputs, [IDENTITY])
