"""Object detection: boxes in COCO's or YOLO's form, the runtime's own decoders, COCO's mean average precision."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BundleError, ImageError, ModelError, RecipeError, one_of
from eightfold.export.in_graph.detections import decoded_task, form_for
from eightfold.export.int8.score import Score
from eightfold.extras import require
from eightfold.files import atomic_directory, sha256_of_bytes
from eightfold.json_types import JsonDict
from eightfold.recipe import Recipe
from eightfold.recipe_sections import DataSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.postprocess import DECODERS, decoder_class, decoder_of
from eightfold.runtime.postprocess.detect import Detector
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.average_precision import average_precision, jackknife
from eightfold.tasks.base import Evaluation, Network, Training, VisionTask
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import FILE, from_coco, open_part, write_part
from eightfold.tasks.inputs import full_batches
from eightfold.tasks.networks import onnx_network
from eightfold.zoo.datasets.scenes import SceneOptions, write_scenes

if TYPE_CHECKING:
    from torch import nn

GENERATED = re.compile(r"scenes(?::(\d+)(?::(\d+))?)?")  # side in pixels, classes
NO_BOXES, WITH_BOXES = "these images have no boxes", "images with a COCO .json, or a YOLO .yaml"
# With these a decoder lets every class of every location through.
EVERYTHING = {
    "score_threshold": 0.0,
    "multi_label": True,
    "nms": False,
    "max_candidates": 10**6,
    "max_detections": 10**6,
}


class Detect(VisionTask):
    """Images with boxes; losses of anchor-based and anchor-free heads; mean average precision, with the thresholds that
    ship."""

    metrics = ("map50-95", "map50")
    scores_by_loss = False

    def check(self, recipe: Recipe) -> None:
        for name, section in (("train", recipe.train), ("compress.finetune", recipe.compress.finetune)):
            if section.epochs:
                self._check_training(name, section.epochs)
        one_of("decoder of boxes as task.decode", self.section.decode, _detectors())
        try:
            decoder_of(self.outputs_mean(()))
        except BundleError as error:
            raise RecipeError(f"task.options: {error.seen}", allowed=error.allowed) from None
        if recipe.export.sizes and "grids" in self.section.options:
            raise RecipeError(
                f"export.sizes for the decoder {self.section.decode!r}, whose anchors are for one size",
                allowed="networks whose decoder needs no option grids",
                remedy="make a bundle for each size",
            )
        if recipe.export.decode:
            self._check_form(recipe)
        require("faster_coco_eval", "measure mean average precision")

    def _check_training(self, name: str, epochs: int) -> None:
        from eightfold.tasks.detection.losses import DETECTION_LOSSES

        if self.section.decode not in DETECTION_LOSSES:
            raise RecipeError(
                f"{name}.epochs is {epochs} for the decoder {self.section.decode!r}",
                allowed=f"0 there; training is for {', '.join(DETECTION_LOSSES)}",
                remedy="give trained weights as model.weights; compress.compensate: lsq needs images only",
            )

    def _check_form(self, recipe: Recipe) -> None:
        decoded_task(self.outputs_mean(()))
        if form_for(recipe.targets) != "onnx":
            raise RecipeError(
                f"export.decode for {', '.join(recipe.targets)}",
                allowed="targets that run plain NonMaxSuppression: a run measures its graphs on this CPU",
                remedy="leave it out, or decode with: eightfold export --decode",
            )

    def data_digest(self, data: DataSection) -> str:
        if GENERATED.fullmatch(data.source):
            return ""
        parts = [part.digest() for part in self._parts(data)]
        return sha256_of_bytes("\n".join(parts).encode())

    def write_data(self, data: DataSection, directory: Path, *, seed: int) -> None:
        generated = GENERATED.fullmatch(data.source)
        if generated:
            usual = SceneOptions()
            side, classes = int(generated[1] or usual.size), int(generated[2] or usual.classes)
            options = SceneOptions(size=side, classes=classes, seed=seed)
            write_scenes(directory, train=data.train_images, test=data.test_images, options=options)
            return
        train, test = self._parts(data)
        with atomic_directory(directory) as temporary:
            write_part(train, temporary / "train")
            write_part(test, temporary / "test")

    def _parts(self, data: DataSection) -> tuple[BoxedImages, BoxedImages]:
        source = Path(data.source)
        if not source.exists():
            raise ImageError(
                f"no images at {source}",
                allowed="a folder with train/ and test/, one of Pascal VOC, a YOLO .yaml, a Darknet .data, scenes:SIDE",
            )
        train = open_part(source, "train", data.train, self.section.labels)
        return train, open_part(source, "test", data.test, train.classes)

    def test_digest(self, data: DataSection, source: str) -> str:
        return self._test_part(source).digest()

    def write_test(self, source: str, folder: Path) -> None:
        write_part(self._test_part(source), folder)

    def _test_part(self, source: str) -> BoxedImages:
        path, labels = Path(source), self.section.labels
        return from_coco(path, labels) if path.suffix == ".json" else open_part(path, "test", None, labels)

    def labelled_images(self, folder: Path) -> BoxedImages:
        return from_coco(folder / FILE)

    def outputs_mean(self, classes: tuple[str, ...], *, decoded: bool = False) -> Task:
        task = Task(kind="detect", decode=self.section.decode, labels=classes, options=self.section.options)
        return decoded_task(task) if decoded else task

    def require_outputs(self, network: Network, image: Array, seen: str) -> None:
        classes = len(network.task.labels)
        try:
            found = _detections(network, image, EVERYTHING)
        except BundleError as error:
            raise ModelError(
                f"{seen}: {error.seen}", allowed=error.allowed, remedy="name another decoder as task.decode"
            ) from None
        known = _classes_in(found)
        if known > classes:
            raise ModelError(
                f"{seen}: the network knows {known} classes and the images {classes}",
                allowed="as many",
                remedy="name the network's classes, in their order, as task.labels",
            )

    def train(self, model: nn.Module, training: Training) -> float:
        from eightfold.tasks.detection.augment import DetectionAugment
        from eightfold.tasks.detection.batches import DetectionBatches
        from eightfold.tasks.detection.losses import detection_loss
        from eightfold.tasks.detection.targets import require_classes
        from eightfold.tasks.detection.training import DetectionTraining, train_detector

        images, section = training.images, training.section
        if not section.epochs:
            return math.nan
        if not isinstance(images, BoxedImages):
            raise ImageError(NO_BOXES, allowed=WITH_BOXES)
        classes = len(images.classes)
        require_classes([each.classes for each in images.objects], images.items, classes)
        augment = DetectionAugment(mosaic=section.mosaic)
        batch = min(section.batch, len(images))
        batches = DetectionBatches(
            images, training.preprocess, batch, augment, multi_scale=section.multi_scale, seed=training.seed
        )
        loss = detection_loss(self.section.decode, _decoder(self.outputs_mean(images.classes)), classes)
        options = DetectionTraining(
            section.epochs,
            section.learning_rate,
            section.weight_decay,
            nominal_batch=section.nominal_batch,
            hooks=training.hooks,
            device=training.device,
        )
        done = train_detector(
            model, loss, batches, options, checkpoint=training.checkpoint, what=training.what, log=training.log
        )
        if done.stopped:
            raise KeyboardInterrupt
        return done.loss

    def evaluate(self, network: Network, images: ImageSet) -> dict[str, float]:
        return average_precision(*self._found(network, images))

    def measure(self, network: Network, images: ImageSet) -> Evaluation:
        return jackknife(*self._found(network, images), self.metrics[0])

    def _found(self, network: Network, images: ImageSet) -> tuple[BoxedImages, list[Detections]]:
        if not isinstance(images, BoxedImages):
            raise ImageError(NO_BOXES, allowed=WITH_BOXES)
        decode, found = _decoder(network.task), list[Detections]()
        for batch in full_batches(images, network.preprocess, network.batch):
            found += decode(network.predict(batch.rows), batch.placements)
        return images, found

    def score(self, images: ImageSet, preprocess: Preprocess, reference: Path) -> Score:
        task = self.outputs_mean(images.classes)

        def of(path: Path) -> float:
            return 100 * self.evaluate(onnx_network(path, preprocess, task), images)["map50-95"]

        return Score("mAP50-95", "%", of, data=images.digest() + preprocess.digest() + task.model_dump_json())


def _detectors() -> list[str]:
    return [name for name in DECODERS if issubclass(decoder_class(name), Detector)]


def _decoder(task: Task) -> Detector:
    decoder = decoder_of(task)
    if not isinstance(decoder, Detector):
        raise RecipeError(f"task.decode is {task.decode!r}", allowed=", ".join(_detectors()))
    return decoder


def classes_known(network: Network, images: Array) -> int:
    """The least number of classes that a detector tells apart: those of all its candidates in a batch of model-ready
    images."""
    return max(map(_classes_in, _all_detections(network, images, EVERYTHING)))


def _classes_in(found: Detections) -> int:
    return 1 + int(max(found.classes, default=-1))


def _detections(network: Network, image: Array, options: JsonDict) -> Detections:
    """The decoder's detections in one model-ready image with other options, if it has these."""
    (found,) = _all_detections(network, image, options)
    return found


def _all_detections(network: Network, images: Array, options: JsonDict) -> list[Detections]:
    known = set(decoder_class(network.task.decode).model_fields)
    more = {name: value for name, value in options.items() if name in known}
    decode = _decoder(network.task.model_copy(update={"options": {**network.task.options, **more}}))
    size = network.preprocess.height, network.preprocess.width
    found: list[Detections] = decode(network.predict(images), [network.preprocess.place(*size)] * len(images))
    return found
