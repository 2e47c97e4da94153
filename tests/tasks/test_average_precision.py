"""Mean average precision: cases that can be reckoned by hand, and COCO's definition written out in numpy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np
import pytest

from eightfold.runtime.postprocess.nms import iou
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.average_precision import average_precision
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.tasks.boxes import coco_content

BOX, OTHER = (10.0, 10.0, 50.0, 50.0), (60.0, 60.0, 90.0, 90.0)
BLANK = np.zeros((100, 100, 3), np.uint8)


def annotated(*objects: Sequence[tuple[Sequence[float], int]], crowd: bool = False) -> BoxedImages:
    each = tuple(
        Objects.of([(box, index, crowd and place > 0) for place, (box, index) in enumerate(o)]) for o in objects
    )
    return BoxedImages((BLANK,) * len(objects), None, ("cup", "plate"), each)


def found(*rows: tuple[Sequence[float], int, float]) -> Detections:
    boxes = np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, _, score in rows], np.float32)
    return Detections(boxes, scores, np.array([index for _, index, _ in rows], np.int64), ("",) * len(rows))


def test_what_is_annotated_scores_one() -> None:
    images = annotated([(BOX, 0), (OTHER, 1)], [])
    answers = [found((BOX, 0, 0.9), (OTHER, 1, 0.2)), found()]
    assert average_precision(images, answers) == {"map50-95": 1.0, "map50": 1.0}


def test_nothing_found_scores_nothing() -> None:
    assert average_precision(annotated([(BOX, 0)]), [found()]) == {"map50-95": 0.0, "map50": 0.0}


def test_one_of_two_found() -> None:
    # Precision is 1 up to a recall of one half: at 51 of the 101 recalls 0, 0.01 ... 1.
    assert average_precision(annotated([(BOX, 0), (OTHER, 0)]), [found((BOX, 0, 0.9))])["map50"] == pytest.approx(
        51 / 101
    )


def test_the_wrong_class_is_not_found() -> None:
    assert average_precision(annotated([(BOX, 0)]), [found((BOX, 1, 0.9))]) == {"map50-95": 0.0, "map50": 0.0}


def test_the_mean_is_over_the_classes_that_are_there() -> None:
    images = annotated([(BOX, 0), (OTHER, 1)])
    assert average_precision(images, [found((BOX, 0, 0.9))])["map50"] == pytest.approx(0.5)


def test_a_better_false_one_costs_precision() -> None:
    answers = [found((OTHER, 0, 0.9), (BOX, 0, 0.8))]
    assert average_precision(annotated([(BOX, 0)]), answers)["map50"] == pytest.approx(0.5)


def test_a_box_counts_up_to_the_overlap_that_it_has() -> None:
    wide = (10.0, 10.0, 50.0, 50.0 - 40 * 0.28)  # an IoU of 0.72: found at 0.50, 0.55 ... 0.70
    precision = average_precision(annotated([(BOX, 0)]), [found((wide, 0, 0.9))])
    assert precision == {"map50-95": pytest.approx(0.5), "map50": 1.0}


def test_what_lies_in_a_crowd_is_no_mistake() -> None:
    images = annotated([(BOX, 0), (OTHER, 0)], crowd=True)
    part = (65.0, 65.0, 80.0, 80.0)
    assert average_precision(images, [found((part, 0, 0.95), (BOX, 0, 0.9))])["map50"] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_what_the_definition_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = [[(_box(rng), int(rng.integers(2))) for _ in range(rng.integers(1, 5))] for _ in range(12)]
    answers = [
        found(
            *(
                (_moved(box, rng), index if rng.random() < 0.8 else 1 - index, float(rng.random()))
                for box, index in each
            )
        )
        for each in truth
    ]
    each_overlap = [
        [_precision(truth, answers, index, overlap / 100) for index in (0, 1)] for overlap in range(50, 100, 5)
    ]
    seen = average_precision(annotated(*truth), answers)
    assert seen["map50"] == pytest.approx(np.mean(each_overlap[0]))
    assert seen["map50-95"] == pytest.approx(np.mean(each_overlap))
    assert 0 < seen["map50-95"] < seen["map50"] < 1


def _box(rng: np.random.Generator) -> tuple[float, ...]:
    x, y = rng.uniform(0, 60, 2)
    return (x, y, x + rng.uniform(10, 40), y + rng.uniform(10, 40))


def _moved(box: Sequence[float], rng: np.random.Generator) -> tuple[float, ...]:
    moved = (np.array(box) + rng.normal(0, 2, 4)).astype(np.float32)
    return tuple(float(edge) for edge in moved)


def _precision(
    truth: Sequence[Sequence[tuple[Sequence[float], int]]], answers: Sequence[Detections], index: int, overlap: float
) -> float:
    """The mean of the best precision at a recall of at least 0, 0.01 ... 1, of one class."""
    hits: list[tuple[float, bool]] = []
    for objects, each in zip(truth, answers, strict=True):
        boxes = np.array([box for box, own in objects if own == index]).reshape(-1, 4)
        free = np.ones(len(boxes), bool)
        mine = each.classes == index
        for box, score in sorted(
            zip(each.boxes[mine].tolist(), each.scores[mine], strict=True), key=lambda row: -row[1]
        ):
            overlaps = np.where(free, iou(np.array([box]), boxes)[0], -1) if len(boxes) else np.array([-1.0])
            hit = bool(overlaps.max() >= overlap)
            if hit:
                free[int(overlaps.argmax())] = False
            hits.append((float(score), hit))
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda row: -row[0])])
    precision = right / np.arange(1, len(right) + 1)
    recall = right / sum(own == index for objects in truth for _, own in objects)
    best = [precision[recall >= least].max(initial=0.0) for least in np.linspace(0, 1, 101)]
    return float(np.mean(best))


def random_case(seed: int) -> tuple[BoxedImages, list[Detections]]:
    """Up to five images of two classes, with crowds; some answers are near an object, others anywhere."""
    rng = np.random.default_rng(seed)
    objects, answers = [], []
    for _ in range(int(rng.integers(1, 6))):
        corners = rng.uniform(0, 60, (int(rng.integers(1, 6)), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 40, corners.shape)], 1)
        classes = rng.integers(0, 2, len(boxes))
        objects.append(Objects(boxes, classes, rng.random(len(boxes)) < 0.1))
        near = boxes[rng.random(len(boxes)) < 0.8] + rng.normal(0, 3, 4)
        low = rng.uniform(0, 60, (int(rng.integers(0, 6)), 2))
        all_boxes = np.concatenate([near, np.concatenate([low, low + rng.uniform(4, 40, low.shape)], 1)])
        all_boxes[:, 2:] = np.maximum(all_boxes[:, 2:], all_boxes[:, :2] + 1)
        scores = np.round(rng.random(len(all_boxes)), 2).astype(np.float32)  # with ties
        labels = rng.integers(0, 2, len(all_boxes))
        answers.append(Detections(all_boxes.astype(np.float32), scores, labels, ("",) * len(all_boxes)))
    if all(each.crowd.all() for each in objects):
        objects[0].crowd[0] = False
    return BoxedImages((BLANK,) * len(objects), None, ("cup", "plate"), tuple(objects)), answers


@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in (0, 10, 20)])
def test_it_equals_pycocotools_on_random_cases(seeds: range, capsys: pytest.CaptureFixture[str]) -> None:
    reference = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    for seed in seeds:
        images, answers = random_case(seed)
        truth = reference.COCO()
        truth.dataset = coco_content(images, [str(place) for place in range(len(images))])
        truth.createIndex()
        rows = [
            {"image_id": place, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
            for place, each in enumerate(answers)
            for (x1, y1, x2, y2), score, label in zip(each.boxes.tolist(), each.scores, each.classes, strict=True)
        ]
        evaluation = importlib.import_module("pycocotools.cocoeval").COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        wanted = {"map50-95": float(evaluation.stats[0]), "map50": float(evaluation.stats[1])}
        assert average_precision(images, answers) == pytest.approx(wanted, abs=1e-6), seed
    capsys.readouterr()
