"""Losses of detectors against slow loops over cells, anchors and objects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from eightfold.errors import ImageError, ModelError, UsageError
from eightfold.runtime.postprocess.yolo import YoloAnchors, YoloDfl
from eightfold.tasks.detection.anchor_free_loss import AnchorFreeLoss, grid_points
from eightfold.tasks.detection.anchor_loss import AnchorGains, AnchorLoss
from eightfold.tasks.detection.assignment import aligned_assignment
from eightfold.tasks.detection.overlap import Kind, box_overlap
from eightfold.tasks.detection.targets import padded_targets, require_classes

Box = tuple[float, float, float, float]
SIZE = (64, 96)
ANCHORS = (((10.0, 14.0), (20.0, 12.0)), ((30.0, 40.0), (60.0, 30.0)))
CLASSES = 3


def slow_overlap(a: Box, b: Box, kind: str) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    iou = inner / union
    hull_w, hull_h = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "iou":
        return iou
    if kind == "giou":
        return iou - (hull_w * hull_h - union) / (hull_w * hull_h)
    centre = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    aspect = math.atan((b[2] - b[0]) / (b[3] - b[1])) - math.atan((a[2] - a[0]) / (a[3] - a[1]))
    v = 4 / math.pi**2 * aspect**2
    return iou - centre / (hull_w**2 + hull_h**2) - v * v / (1 - iou + v + 1e-12)


def random_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * torch.tensor([70.0, 45.0])
    return torch.cat([low, low + 3 + torch.rand(count, 2, generator=generator) * torch.tensor([22.0, 15.0])], 1)


@pytest.mark.parametrize("kind", ["iou", "giou", "ciou"])
def test_overlaps_are_those_of_a_loop(kind: Kind) -> None:
    a, b = random_boxes(50, 1).double(), random_boxes(50, 2).double()
    slow = [slow_overlap(tuple(x), tuple(y), kind) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(box_overlap(a, b, kind).numpy(), slow, atol=1e-7)


def targets() -> Tensor:
    """Two images with objects and one without; the last object of the second fits no anchor."""
    boxes = [random_boxes(3, 3).numpy(), np.array([[5.0, 5, 45, 50], [40, 20, 43, 62]]), np.zeros((0, 4))]
    return padded_targets(boxes, [np.array([0, 2, 1]), np.array([1, 2]), np.zeros(0, np.int64)])


def maps(channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = ((8, 12), (4, 6))
    return [torch.randn(3, channels, *shape, generator=generator).requires_grad_() for shape in shapes]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def entropy(logit: float, wanted: float) -> float:
    p = sigmoid(logit)
    return -wanted * math.log(p) - (1 - wanted) * math.log(1 - p)


def slow_anchor_loss(raws: list[Tensor], truth: Tensor, unmatched: str, box_form: str, ratio: float) -> float:
    total = {"box": 0.0, "obj": 0.0, "cls": 0.0}
    fits: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    for image in range(3):
        for place, (label, x1, y1, x2, y2) in enumerate(truth[image].tolist()):
            if label >= 0:
                for scale, anchors in enumerate(ANCHORS):
                    for anchor, (w, h) in enumerate(anchors):
                        inner = min(w, x2 - x1) * min(h, y2 - y1)
                        iou = inner / (w * h + (x2 - x1) * (y2 - y1) - inner)
                        fits.setdefault((image, place), []).append((iou, scale, anchor))
    chosen: dict[int, list[tuple[int, int, int]]] = {0: [], 1: []}
    for (image, place), rows in fits.items():
        good = [row for row in rows if row[0] > 0.2]
        if not good and unmatched == "best-anchor":
            good = [max(rows)]
        for _, scale, anchor in good:
            chosen[scale].append((image, place, anchor))
    for scale, raw in enumerate(raws):
        rows_, columns = raw.shape[2:]
        stride_x, stride_y = SIZE[1] / columns, SIZE[0] / rows_
        wanted: dict[tuple[int, int, int, int], float] = {}
        boxes, classes = [], []
        for image, place, anchor in chosen[scale]:
            label, x1, y1, x2, y2 = truth[image, place].tolist()
            column, row = int((x1 + x2) / 2 / stride_x), int((y1 + y2) / 2 / stride_y)
            values = raw[image, anchor * 8 : anchor * 8 + 8, row, column].tolist()
            width, height = ANCHORS[scale][anchor]
            factor = 1.0 if box_form == "exp" else 2.0
            x = (sigmoid(values[0]) * factor - (factor - 1) / 2 + column) * stride_x
            y = (sigmoid(values[1]) * factor - (factor - 1) / 2 + row) * stride_y
            grow = math.exp if box_form == "exp" else lambda t: (2 * sigmoid(t)) ** 2
            w, h = grow(values[2]) * width, grow(values[3]) * height
            found = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            scaled = [
                tuple(v / s for v, s in zip(b, (stride_x, stride_y) * 2, strict=True))
                for b in (found, (x1, y1, x2, y2))
            ]
            iou = slow_overlap(scaled[0], scaled[1], "giou")
            boxes.append(1 - iou)
            wanted[image, anchor, row, column] = 1 - ratio + ratio * max(iou, 0)
            classes += [entropy(values[5 + c], float(c == label)) for c in range(CLASSES)]
        cells = [
            entropy(float(raw[i, a * 8 + 4, y, x]), wanted.get((i, a, y, x), 0.0))
            for i in range(3)
            for a in range(2)
            for y in range(rows_)
            for x in range(columns)
        ]
        total["obj"] += sum(cells) / len(cells)
        if boxes:
            total["box"] += sum(boxes) / len(boxes)
            total["cls"] += sum(classes) / len(classes)
    return 3.54 * total["box"] + 64.3 * total["obj"] + 37.4 * CLASSES / 80 * total["cls"]


@pytest.mark.parametrize("unmatched", ["best-anchor", "drop"])
@pytest.mark.parametrize("form", ["exp", "sigmoid"])
def test_the_anchor_loss_is_that_of_a_loop(unmatched: str, form: str) -> None:
    decoder = YoloAnchors(anchors=ANCHORS, box=form, scale_xy=1.0 if form == "exp" else 2.0)
    loss = AnchorLoss(decoder, CLASSES, AnchorGains(unmatched=unmatched))  # type: ignore[arg-type]  # likewise
    loss.ratio = 0.5
    raws = maps(2 * (5 + CLASSES))
    with torch.no_grad():
        slow = slow_anchor_loss(raws, targets(), unmatched, form, 0.5)
    found = loss(raws, targets(), SIZE)
    assert found.item() == pytest.approx(slow, rel=1e-4)
    assert (loss.matched, loss.unmatched) == (4, 1)
    found.backward()  # type: ignore[no-untyped-call]
    assert all(raw.grad is not None and bool(torch.isfinite(raw.grad).all()) for raw in raws)


def test_images_without_objects_have_an_objectness_term_only() -> None:
    decoder = YoloAnchors(anchors=ANCHORS)
    empty = padded_targets([np.zeros((0, 4))] * 3, [np.zeros(0, np.int64)] * 3)
    raws = maps(2 * (5 + CLASSES))
    logits = [raw.detach()[:, [4, 12]] for raw in raws]
    wanted = 64.3 * sum(torch.nn.functional.softplus(each).mean().item() for each in logits)
    assert AnchorLoss(decoder, CLASSES)(raws, empty, SIZE).item() == pytest.approx(wanted, rel=1e-5)
    free = maps(4 * 4 + CLASSES)
    AnchorFreeLoss(4, CLASSES)(free, empty, SIZE).backward()  # type: ignore[no-untyped-call]
    assert free[0].grad is not None
    assert float(free[0].grad[:, :16].abs().sum()) == 0


def slow_alignment(scores: Tensor, boxes: Tensor, points: Tensor, truth: Tensor, top: int):  # type: ignore[no-untyped-def]
    """For each image: point -> (object, target score)."""
    found = []
    for image in range(len(scores)):
        claims: dict[int, list[tuple[float, int, float]]] = {}
        for place, (label, *box) in enumerate(truth[image].tolist()):
            rows = []
            for point, (x, y) in enumerate(points.tolist()):
                if label >= 0 and box[0] < x < box[2] and box[1] < y < box[3]:
                    iou = max(slow_overlap(tuple(boxes[image, point].tolist()), tuple(box), "ciou"), 0)
                    rows.append((float(scores[image, point, int(label)]) ** 0.5 * iou**6, iou, point))
            for t, iou, point in sorted(rows, key=lambda row: -row[0])[:top]:
                claims.setdefault(point, []).append((iou, place, t))
        owned = {point: max(rows, key=lambda row: row[0]) for point, rows in claims.items()}
        image_found = {}
        for point, (_, place, t) in owned.items():
            mine = [row for row in owned.values() if row[1] == place]
            best_t, best_iou = max(row[2] for row in mine), max(row[0] for row in mine)
            image_found[point] = (place, t / (best_t + 1e-9) * best_iou)
        found.append(image_found)
    return found


def free_predictions(raws: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, boxes in pixels, and points, by the runtime's own decoder's formulas in loops."""
    scores, boxes, points = [], [], []
    for raw in raws:
        rows, columns = raw.shape[2:]
        sx, sy = SIZE[1] / columns, SIZE[0] / rows
        for y in range(rows):
            for x in range(columns):
                values = raw[:, :, y, x].detach().double()
                bins = values[:, :16].reshape(-1, 4, 4).softmax(2) @ torch.arange(4.0).double()
                px, py = (x + 0.5) * sx, (y + 0.5) * sy
                boxes.append(
                    torch.stack(
                        [px - bins[:, 0] * sx, py - bins[:, 1] * sy, px + bins[:, 2] * sx, py + bins[:, 3] * sy], 1
                    )
                )
                scores.append(values[:, 16:].sigmoid())
                points.append([px, py])
    return torch.stack(scores, 1), torch.stack(boxes, 1), torch.tensor(points)


def test_alignment_is_that_of_a_loop() -> None:
    raws = maps(16 + CLASSES)
    scores, boxes, points = free_predictions(raws)
    ours = aligned_assignment(scores.float(), boxes.float(), points, targets())
    for image, rows in enumerate(slow_alignment(scores, boxes, points, targets(), 10)):
        assert set(torch.nonzero(ours.positive[image])[:, 0].tolist()) == set(rows)
        for point, (place, score) in rows.items():
            label, *box = targets()[image, place].tolist()
            assert ours.boxes[image, point].tolist() == pytest.approx(box)
            assert float(ours.scores[image, point, int(label)]) == pytest.approx(score, abs=1e-4)
            assert int((ours.scores[image, point] > 0).sum()) <= 1


def test_the_anchor_free_loss_is_that_of_a_loop() -> None:
    raws = maps(16 + CLASSES)
    scores, boxes, points = free_predictions(raws)
    truth = targets()
    assigned = slow_alignment(scores, boxes, points, truth, 10)
    total = max(sum(score for rows in assigned for _, score in rows.values()), 1)
    flat = torch.cat([raw.detach().flatten(2) for raw in raws], 2).double()
    box = distribution = classes = 0.0
    _, strides = grid_points(raws, SIZE)
    for image in range(3):
        for point in range(len(points)):
            place, score = assigned[image].get(point, (0, 0.0))
            label, *wanted = truth[image, place].tolist()
            for c in range(CLASSES):
                classes += entropy(
                    float(flat[image, 16 + c, point]), score if c == label and point in assigned[image] else 0
                )
            if point in assigned[image]:
                box += score * (1 - slow_overlap(tuple(boxes[image, point].tolist()), tuple(wanted), "ciou"))
                (px, py), (sx, sy) = points[point].tolist(), strides[point].tolist()
                sides = [(px - wanted[0]) / sx, (py - wanted[1]) / sy, (wanted[2] - px) / sx, (wanted[3] - py) / sy]
                for side, distance in enumerate(sides):
                    distance = min(max(distance, 0), 2.99)
                    logs = flat[image, 4 * side : 4 * side + 4, point].log_softmax(0).tolist()
                    low = int(distance)
                    cross = -(low + 1 - distance) * logs[low] - (distance - low) * logs[low + 1]
                    distribution += score * cross / 4
    slow = (7.5 * box + 0.5 * classes + 1.5 * distribution) / total
    assert AnchorFreeLoss(4, CLASSES)(raws, truth, SIZE).item() == pytest.approx(slow, rel=1e-3)


def test_losses_read_maps_as_the_decoders_do() -> None:
    """A network that gives the ground truth exactly has no box term, and the runtime decodes it as that truth."""
    truth = padded_targets([np.array([[16.0, 8, 48, 40]])], [np.array([1])])
    raw = torch.full((1, 4 + CLASSES, 8, 12), -20.0)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    px, py = (x + 0.5) * 8, (y + 0.5) * 8
    raw[0, :4] = torch.stack([px - 16, py - 8, 48 - px, 40 - py]) / 8
    raw[0, 5, 2, 3] = 20.0
    assert AnchorFreeLoss(1, CLASSES)([raw], truth, SIZE).item() < 20
    decoder = YoloDfl(reg_max=1, labels=("a", "b", "c"))
    found = decoder.candidates({"map": raw[0].numpy()}, SIZE)
    np.testing.assert_allclose(found.boxes, [[16, 8, 48, 40]], atol=1e-4)
    assert found.classes.tolist() == [1]


def test_what_does_not_fit_is_one_line() -> None:
    decoder = YoloAnchors(anchors=ANCHORS)
    with pytest.raises(ModelError, match=r"a map of 14 channels; allowed: 2 anchors \* \(5 \+ 3 classes\) = 16"):
        AnchorLoss(decoder, CLASSES)(maps(14), targets(), SIZE)
    with pytest.raises(ModelError, match="gives 1 maps"):
        AnchorLoss(decoder, CLASSES)(maps(16)[:1], targets(), SIZE)
    with pytest.raises(UsageError, match="target of class 2; allowed: 0 to 1"):
        AnchorLoss(decoder, 2)(maps(14), targets(), SIZE)
    with pytest.raises(ModelError, match=r"maps of 19, 19 channels; allowed: 4 \* 8"):
        AnchorFreeLoss(8, CLASSES)(maps(19), targets(), SIZE)
    with pytest.raises(ImageError, match=r"b.png has an object of class 7; allowed: 0 to 2"):
        require_classes([np.array([1]), np.array([0, 7])], ["a.png", "b.png"], 3)
