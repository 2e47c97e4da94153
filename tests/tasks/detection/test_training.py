"""Augmentation against loops over pixels and boxes, and detectors that learn."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.train.distill.detection import HeadMaps, detection_distillation
from eightfold.compress.train.distill.hook import Distill
from eightfold.compress.train.hooks import Batch, Run
from eightfold.compress.train.log import Log
from eightfold.errors import ImageError, ModelError, UnknownNameError, UsageError
from eightfold.recipe_sections import TaskSection, TrainSection
from eightfold.runtime.postprocess.yolo import YoloAnchors, YoloDfl
from eightfold.tasks.base import Training
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.tasks.classify import Classify
from eightfold.tasks.detect import Detect
from eightfold.tasks.detection.anchor_loss import AnchorLoss
from eightfold.tasks.detection.augment import (
    GREY,
    NONE,
    Cut,
    DetectionAugment,
    Labelled,
    affine_matrix,
    enough_left,
    mirrored,
    mosaic,
    moved_boxes,
    recoloured,
    warp,
)
from eightfold.tasks.detection.batches import DetectionBatches
from eightfold.tasks.detection.distilling import DetectionDistill
from eightfold.tasks.detection.losses import DETECTION_LOSSES, detection_loss, register_detection_loss
from eightfold.tasks.detection.training import (
    BurnIn,
    DetectionTraining,
    UnmatchedWarning,
    parameter_groups,
    train_detector,
)
from eightfold.tasks.distilling import distillation_hooks
from eightfold.tasks.networks import module_network
from eightfold.zoo.datasets.scenes import SceneOptions, scene

SIDE = 64


def labelled(seed: int, height: int = 20, width: int = 30) -> Labelled:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    return Labelled(image, np.array([[2.0, 3, 12, 15], [10, 5, 28, 18]]), np.array([0, seed]))


@pytest.mark.parametrize("centre", [(15, 10), (45, 30), (31, 22)])
def test_a_mosaic_is_that_of_a_loop_over_pixels(centre: tuple[int, int]) -> None:
    parts = [labelled(seed, *shape) for seed, shape in enumerate([(20, 30), (14, 30), (20, 22), (18, 30)])]
    found = mosaic(parts, (20, 30), centre)
    slow = np.full((40, 60, 3), GREY)
    for place, part in enumerate(parts):
        height, width = part.image.shape[:2]
        for y in range(height):
            for x in range(width):
                row = centre[1] + (y - height if place < 2 else y)
                column = centre[0] + (x - width if place in (0, 2) else x)
                if 0 <= row < 40 and 0 <= column < 60:
                    slow[row, column] = part.image[y, x]
    np.testing.assert_array_equal(found.image, slow)
    last = parts[3].boxes + np.array([*centre, *centre])
    np.testing.assert_array_equal(found.boxes[6:], last)
    assert found.classes.tolist() == [0, 0, 0, 1, 0, 2, 0, 3]


def test_affine_maps_move_boxes_with_their_pixels() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:41, 30:51] = 255
    options = DetectionAugment(degrees=20, translate=0.1, scale=0.3, shear=5)
    matrix = affine_matrix(rng, options, (60, 80), (60, 80))
    box = np.array([[30.0, 20, 50, 40]])
    found = warp(Labelled(image, box, np.array([1])), matrix, (60, 80))
    ys, xs = np.nonzero(found.image[..., 0] > 200)
    np.testing.assert_allclose(found.boxes[0], [xs.min(), ys.min(), xs.max(), ys.max()], atol=2)
    slow = []
    for x, y in ((30, 20), (50, 20), (30, 40), (50, 40)):
        slow.append([sum(matrix[row, k] * (x, y, 1)[k] for k in range(3)) for row in range(2)])
    xs_, ys_ = zip(*slow, strict=True)
    np.testing.assert_allclose(moved_boxes(box, matrix)[0], [min(xs_), min(ys_), max(xs_), max(ys_)])
    same = affine_matrix(rng, NONE, (60, 80), (60, 80))
    np.testing.assert_allclose(same, np.eye(3), atol=1e-12)


def test_cut_boxes_are_dropped_and_counted() -> None:
    whole = np.array([[0.0, 0, 10, 10], [-8, 0, 2, 10], [0, 0, 4, 10], [0, 0, 60, 5.5], [-9, 0, 11, 10]])
    cut = np.clip(whole, 0, 100)
    assert enough_left(whole, cut).tolist() == [True, False, False, False, True]
    plain = Labelled(np.zeros((100, 100, 3), np.uint8), whole, np.arange(5))
    tally = Cut()
    assert warp(plain, np.eye(3), (100, 100), tally).classes.tolist() == [0, 4]
    assert (tally.seen, tally.dropped, tally.share) == (5, 3, 0.6)


def test_what_lies_outside_the_image_is_not_counted_as_cut() -> None:
    """As three quarters of a mosaic do."""
    outside = np.array([[0.0, 0, 10, 10], [-30, 0, -20, 10], [0, 100, 10, 140]])
    tally = Cut()
    warp(Labelled(np.zeros((100, 100, 3), np.uint8), outside, np.arange(3)), np.eye(3), (100, 100), tally)
    assert (tally.seen, tally.dropped) == (1, 0)


def test_mirrors_and_colours() -> None:
    start = labelled(1)
    once = mirrored(start)
    np.testing.assert_array_equal(once.image[:, 0], start.image[:, -1])
    assert once.boxes[0].tolist() == [18, 3, 28, 15]
    np.testing.assert_array_equal(mirrored(once).boxes, start.boxes)
    grey = np.full((4, 4, 3), 100, np.uint8)
    changed = recoloured(grey, np.random.default_rng(0), DetectionAugment(value=0.5))
    assert len(np.unique(changed)) == 1  # grey has no hue or saturation to change
    assert changed[0, 0, 0] != 100
    with pytest.raises(UsageError, match="share of 2 as mosaic"):
        DetectionAugment(mosaic=2)


def scenes(count: int, classes: int = 1) -> BoxedImages:
    drawn = [scene(number, SceneOptions(classes=classes, size=SIDE, most=2)) for number in range(count)]
    objects = tuple(Objects(each.boxes, each.labels, np.zeros(len(each.labels), bool)) for each in drawn)
    return BoxedImages(tuple(each.image for each in drawn), None, ("disc", "box", "star")[:classes], objects)


def test_batches_are_the_same_for_the_same_number_and_keep_boxes_on_objects() -> None:
    images, preprocess = scenes(6), Preprocess(height=SIDE, width=SIDE)
    batches = DetectionBatches(images, preprocess, 3, DetectionAugment(), seed=1)
    first, again, other = batches(4), batches(4), batches(5)
    assert torch.equal(first.inputs[0], again.inputs[0])
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.inputs[0], other.inputs[0])
    plain = DetectionBatches(images, preprocess, 6, NONE)(0)
    order = np.random.default_rng((0, 0)).permutation(6)
    for row, index in enumerate(order):
        np.testing.assert_allclose(plain.inputs[0][row], preprocess(images.load(int(index))), atol=0.003)
        count = len(images.objects[index].classes)
        np.testing.assert_allclose(plain.target[row, :count, 1:], images.objects[index].boxes, atol=1e-4)
    scaled = DetectionBatches(images, preprocess, 6, NONE, multi_scale=True, seed=3)
    sides = {tuple(scaled(number).inputs[0].shape[2:]) for number in range(6)}
    assert sides <= {(32, 32), (64, 64), (96, 96)}
    assert len(sides) > 1
    number = next(number for number in range(6) if scaled(number).inputs[0].shape[2] == 96)
    unscaled = DetectionBatches(images, preprocess, 6, NONE, seed=3)(number)
    there = unscaled.target[..., 0] >= 0
    torch.testing.assert_close(scaled(number).target[there][:, 1:], 1.5 * unscaled.target[there][:, 1:])


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, 16, 32, 48)
        layers = [
            layer
            for a, b in itertools.pairwise(widths)
            for layer in (nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.SiLU())
        ]
        self.body = nn.Sequential(*layers, nn.Conv2d(48, 48, 3, 1, 1), nn.SiLU())
        self.head = nn.Conv2d(48, channels, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.head(self.body(x))]


DECODERS: dict[str, Any] = {"yolo-dfl": YoloDfl, "yolo-anchors": YoloAnchors}
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "yolo-dfl": ({"reg_max": 4}, 16 + 1),
    "yolo-anchors": ({"anchors": [[[10, 10], [18, 18], [26, 26]]]}, 3 * (5 + 1)),
}


@pytest.mark.parametrize("decode", sorted(KINDS))
def test_a_detector_learns_and_the_runtime_decodes_what_it_learned(decode: str) -> None:
    options, channels = KINDS[decode]
    torch.manual_seed(0)
    images, preprocess, model = scenes(16), Preprocess(height=SIDE, width=SIDE), Head(channels)
    task = Detect(TaskSection(kind="detect", decode=decode, options=options))
    network = module_network(model, preprocess, task.outputs_mean(images.classes), batch=8)
    before = task.evaluate(network, images)["map50"]
    loss = detection_loss(decode, DECODERS[decode](labels=images.classes, **options), 1)
    settings = DetectionTraining(40, 0.02, average=0.9, nominal_batch=8, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmatchedWarning)
        done = train_detector(model, loss, DetectionBatches(images, preprocess, 8, NONE), settings)
    assert done.rows[-1]["loss"] < 0.2 * done.rows[0]["loss"]
    model.eval()
    assert before < 0.1
    assert task.evaluate(network, images)["map50"] > 0.6


def test_a_recipe_trains_a_detector(tmp_path: Path) -> None:
    task = Detect(TaskSection(kind="detect", decode="yolo-dfl", options={"reg_max": 4}))
    section = TrainSection(epochs=4, batch=8, learning_rate=0.01, mosaic=0)
    preprocess, checkpoint = Preprocess(height=SIDE, width=SIDE), tmp_path / "state.safetensors"
    loss = task.train(Head(17), Training(scenes(8), preprocess, section, 0, checkpoint, "training"))
    assert 0 < loss < 1000
    assert np.isnan(
        task.train(Head(17), Training(scenes(1), preprocess, TrainSection(epochs=0), 0, checkpoint, "training"))
    )


def test_a_teacher_beside_a_detector_adds_its_strategies_losses() -> None:
    """The hook's terms are those of `detection_distillation` on both networks' maps; none for the teacher itself."""
    options, channels = KINDS["yolo-anchors"]
    torch.manual_seed(0)
    student, teacher = Head(channels), Head(channels).eval()
    task = Detect(TaskSection(kind="detect", decode="yolo-anchors", options=options))
    batch = DetectionBatches(scenes(4), Preprocess(height=SIDE, width=SIDE), 4, NONE)(0)
    batch = Batch(batch.inputs, (batch.target, (SIDE, SIDE)))
    weights = {"detection-1": 1.0, "detection-3": 2.0, "detection-4": 1.0, "attention": 1.0}
    plain, special = distillation_hooks(task, student, teacher, weights, batch.inputs[0], ("disc",))
    assert isinstance(plain, Distill)
    assert isinstance(special, DetectionDistill)
    run = Run(student, torch.optim.SGD(student.parameters(), lr=0.1))
    with special.around_forward(run, batch):
        outputs = student(*batch.inputs)
    found = special.terms(run, batch, outputs)
    anchors = [torch.tensor(options["anchors"][0]) / 8]
    own, theirs = (HeadMaps(maps, anchors) for maps in (outputs, teacher(*batch.inputs)))
    loss = AnchorLoss(YoloAnchors(**options), 1)
    matched = loss.positives(outputs, batch.target[0], (SIDE, SIDE))
    assert len(matched[0].image)
    torch.testing.assert_close(found["detection-1"], detection_distillation(1, own, theirs))
    torch.testing.assert_close(found["detection-3"], 2 * detection_distillation(3, own, theirs, matched))
    assert found["detection-4"].detach() > 0
    assert special._loss.matched == 0
    itself = DetectionDistill(teacher, teacher, loss, {"detection-3": 1.0}, batch.inputs[0])
    nothing = itself.terms(run, batch, teacher(*batch.inputs))["detection-3"]
    torch.testing.assert_close(nothing.detach(), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_a_teacher_that_does_not_fit_a_detector_is_refused() -> None:
    task = Detect(TaskSection(kind="detect", decode="yolo-anchors", options=KINDS["yolo-anchors"][0]))
    image = torch.rand(1, 3, SIDE, SIDE)
    with pytest.raises(ModelError, match=r"the student gives maps .* and the teacher"):
        distillation_hooks(task, Head(18), Head(21), {"detection-1": 1.0}, image, ("disc",))
    with pytest.raises(UsageError, match="detection distillation 'detection-6'"):
        distillation_hooks(task, Head(18), Head(18), {"detection-6": 1.0}, image, ("disc",))
    free = Detect(TaskSection(kind="detect", decode="yolo-dfl", options={"reg_max": 4}))
    with pytest.raises(UsageError, match="of a head without anchors; allowed: the decoder yolo-anchors"):
        distillation_hooks(free, Head(17), Head(17), {"detection-1": 1.0}, image, ("disc",))
    with pytest.raises(UsageError, match="'detection-1' for classify"):
        distillation_hooks(Classify(TaskSection()), Head(18), Head(18), {"detection-1": 1.0}, image, ("disc",))


@pytest.mark.parametrize(("nominal", "steps"), [(64, 1), (8, 2), (4, 4)])
def test_batches_are_accumulated_up_to_the_nominal_one(tmp_path: Path, nominal: int, steps: int) -> None:
    """Two epochs of two batches of 4 images."""
    task = Detect(TaskSection(kind="detect", decode="yolo-dfl", options={"reg_max": 4}))
    section = TrainSection(epochs=2, batch=4, learning_rate=0.01, mosaic=0, nominal_batch=nominal)
    log, preprocess = Log(), Preprocess(height=SIDE, width=SIDE)
    task.train(Head(17), Training(scenes(8), preprocess, section, 0, tmp_path / "state", "training", log=log))
    assert len(log.rows) == steps


def test_objects_that_no_anchor_matches_are_told(tmp_path: Path) -> None:
    task = Detect(TaskSection(kind="detect", decode="yolo-anchors", options={"anchors": [[[2, 60]]]}))
    section = TrainSection(epochs=1, batch=8, learning_rate=0.01, mosaic=0)
    training = Training(scenes(8), Preprocess(height=SIDE, width=SIDE), section, 0, tmp_path / "state", "training")
    with pytest.warns(UnmatchedWarning, match="ground truths match no anchor, and went to their best anchor"):
        task.train(Head(6), training)


def test_a_class_that_the_network_does_not_have_names_the_file(tmp_path: Path) -> None:
    images = scenes(2)
    bad = BoxedImages(images.items, None, images.classes, (images.objects[0], Objects.of([((1, 1, 9, 9), 4, False)])))
    task = Detect(TaskSection(kind="detect", decode="yolo-dfl"))
    training = Training(
        bad, Preprocess(height=SIDE, width=SIDE), TrainSection(epochs=1), 0, tmp_path / "state", "training"
    )
    with pytest.raises(ImageError, match="has an object of class 4; allowed: 0 to 0") as caught:
        task.train(Head(65), training)
    assert "\n" not in str(caught.value)


def test_burn_in_brings_rates_up() -> None:
    model = Head(6)
    loss = AnchorLoss(YoloAnchors(anchors=(((8.0, 8.0),),)), 1)
    optimizer = torch.optim.SGD(parameter_groups(model, 5e-4), lr=0.01, momentum=0.937, nesterov=True)
    assert [len(group["params"]) for group in optimizer.param_groups] == [3, 5, 5]
    hook, run = BurnIn(10, loss), Run(model, optimizer)
    hook.on_start(run)
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (20, 1.0)):
        run.step = step
        for group in optimizer.param_groups:
            group["lr"] = 0.01
        hook.after_backward(run)
        others, weights, biases = optimizer.param_groups
        assert others["lr"] == pytest.approx(0.01 * share)
        assert biases["lr"] == pytest.approx(0.1 + (0.01 - 0.1) * share)
        assert weights["weight_decay"] == pytest.approx(5e-4 * share)
        assert weights["momentum"] == pytest.approx(0.9 + 0.037 * share)
        assert loss.ratio == share


def test_losses_are_registered_by_decoder() -> None:
    with pytest.raises(UsageError, match="decoder 'yolo-dfl' exists"):
        register_detection_loss("yolo-dfl", DETECTION_LOSSES["yolo-dfl"])
    with pytest.raises(UnknownNameError, match="loss for the decoder 'ssd'"):
        detection_loss("ssd", YoloAnchors(anchors=()), 1)
