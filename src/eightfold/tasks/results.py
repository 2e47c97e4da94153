"""Metrics of one network on labelled images, with what a paired test needs of each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.arrays import Array
from eightfold.calib.images.class_order import output_labels
from eightfold.calib.images.decode import images_in, read_image
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.errors import ImageError, UsageError
from eightfold.json_types import JsonDict
from eightfold.runtime.postprocess import decoder_of
from eightfold.runtime.postprocess.decoder import the_output
from eightfold.runtime.postprocess.results import Detections
from eightfold.tasks.average_precision import average_precision, average_precision_by_class
from eightfold.tasks.base import Network
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import from_coco, open_part
from eightfold.tasks.detect import classes_known
from eightfold.tasks.inputs import full_batches
from eightfold.tasks.paired import Paired, bootstrap, mcnemar
from eightfold.text_table import text_table

UNKNOWN = 255


@dataclass(frozen=True)
class Results(ABC):
    """Metrics of one network.

    Attributes:
        images: their number.
        metrics: name -> value; the first one leads.
        by_class: class -> its metrics.
    """

    images: int
    metrics: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @abstractmethod
    def paired(self, other: Results) -> Paired:
        """The test of the difference to the same images' results of another network."""

    def by_class_lines(self) -> list[str]:
        """A table of the classes."""
        if not self.by_class:
            return ["  no classes"]
        names = list(next(iter(self.by_class.values())))
        rows = [[label, *(f"{100 * row[name]:.1f}" for name in names)] for label, row in self.by_class.items()]
        return text_table([["class", *names], *rows], left={0})

    def to_dict(self) -> JsonDict:
        """JSON-able."""
        return {"metrics": dict(self.metrics), "by_class": {name: dict(row) for name, row in self.by_class.items()}}


@dataclass(frozen=True)
class ClassifyResults(Results):
    """Top-1 and top-5; `confusion[label][answer]` counts images."""

    right: tuple[bool, ...] = ()
    confusion: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def paired(self, other: Results) -> Paired:
        if not isinstance(other, ClassifyResults):
            raise UsageError("two different tasks", allowed="two classifiers")
        return mcnemar("top-1", self.right, other.right)

    def to_dict(self) -> JsonDict:
        return {**super().to_dict(), "confusion": {name: dict(row) for name, row in self.confusion.items()}}

    def by_class_lines(self) -> list[str]:
        wrong = {
            label: max(((count, answer) for answer, count in row.items() if answer != label), default=(0, ""))
            for label, row in self.confusion.items()
        }
        mistaken = [f"  {label} for {answer}: {count}" for label, (count, answer) in wrong.items() if count]
        return super().by_class_lines() + (["most mistaken:", *mistaken] if mistaken else [])


@dataclass(frozen=True)
class DetectResults(Results):
    """mAP; the detections of each image."""

    truth: BoxedImages | None = None
    found: tuple[Detections, ...] = ()

    def paired(self, other: Results) -> Paired:
        if not isinstance(other, DetectResults) or self.truth is None:
            raise UsageError("two different tasks", allowed="two detectors")
        truth, theirs = self.truth, other.found

        def difference(places: NDArray[np.int64]) -> float:
            chosen = truth.subset(places.tolist())
            if not any(len(each.classes) for each in chosen.objects):
                return float("nan")
            pair = (average_precision(chosen, [found[at] for at in places]) for found in (self.found, theirs))
            first, second = (values["map50-95"] for values in pair)
            return second - first

        return bootstrap("mAP50-95", self.images, difference)


@dataclass(frozen=True)
class DenseResults(Results):
    """A metric that is a mean over images; `shares` are its values."""

    shares: tuple[float, ...] = ()

    def paired(self, other: Results) -> Paired:
        if not isinstance(other, DenseResults):
            raise UsageError("two different tasks", allowed="two networks of one task")
        change = np.subtract(other.shares, self.shares)
        return bootstrap(next(iter(self.metrics)), self.images, lambda places: float(change[places].mean()))


def results_of(network: Network, data: Path) -> Results:
    """The metrics of the network's task.

    Raises:
        UsageError: outputs of that kind have no metric.
        ImageError: the labels cannot be read or do not fit.
    """
    measures: Mapping[str, Callable[[Network, Path], Results]] = {
        "classify": _classify,
        "detect": _detect,
        "segment": _segment,
        "matte": _matte,
    }
    if network.task.kind not in measures:
        raise UsageError(
            "outputs without a task have no metric",
            allowed=", ".join(measures),
            remedy="name the task: --task classify, --task yolo-boxes, --task FILE.json, ...",
        )
    return measures[network.task.kind](network, data)


def _classify(network: Network, data: Path) -> Results:
    images = open_images(data)
    if images.labels is None:
        raise ImageError(f"the images in {data} have no labels", allowed="a folder for each label: FOLDER/LABEL/*")
    known = network.task.labels
    order = _rankings(network, images)
    labels = output_labels(images, order.shape[1], known=known, source=data)
    named = [images.classes[label] if images.classes else str(label) for label in images.labels]
    answers = dict(sorted(zip(labels.tolist(), named, strict=True)))
    shown = {**dict(enumerate(known or map(str, range(order.shape[1])))), **answers}
    right, top5 = order[:, 0] == labels, (order[:, :5] == labels[:, None]).any(axis=1)
    confusion: dict[str, dict[str, int]] = {name: {} for name in answers.values()}
    for label, answer in zip(labels.tolist(), order[:, 0].tolist(), strict=True):
        row = confusion[answers[label]]
        row[shown[answer]] = row.get(shown[answer], 0) + 1
    by_class = {
        answers[label]: {"top-1": float(right[labels == label].mean()), "top-5": float(top5[labels == label].mean())}
        for label in sorted(set(labels.tolist()))
    }
    metrics = {"top-1": float(right.mean()), "top-5": float(top5.mean())}
    return ClassifyResults(len(images), metrics, by_class, tuple(map(bool, right)), confusion)


def _rankings(network: Network, images: ImageSet) -> NDArray[np.int64]:
    """(images, classes): best first, the lower of equals."""
    rows = []
    for batch in full_batches(images, network.preprocess, network.batch):
        scores = the_output(network.predict(batch.rows))[: len(batch.places)]
        rows.append(np.argsort(-scores.reshape(len(scores), -1), axis=1, kind="stable"))
    return np.concatenate(rows)


def _detect(network: Network, data: Path) -> Results:
    labels = network.task.labels
    images = from_coco(data, labels) if data.suffix == ".json" else open_part(data, "test", None, labels)
    if not any(len(each.classes) for each in images.objects):
        raise ImageError(f"the images of {data} have no boxes", allowed="images with annotated objects")
    if not labels:
        images = _in_network_order(network, images, data)
    decode: Any = decoder_of(network.task)
    found: list[Detections] = []
    for batch in full_batches(images, network.preprocess, network.batch):
        found += decode(network.predict(batch.rows), batch.placements)
    values = average_precision(images, found)
    metrics = {"mAP50-95": values["map50-95"], "mAP50": values["map50"]}
    return DetectResults(len(images), metrics, average_precision_by_class(images, found), images, tuple(found))


def _in_network_order(network: Network, images: BoxedImages, data: Path) -> BoxedImages:
    """The images with their classes as a network without names counts them: in the order of the data set, or, where it
    has fewer of them, by their numbers."""
    known = classes_known(network, next(full_batches(images, network.preprocess, network.batch)).rows)
    names = images.classes
    if known <= len(names):
        return images
    if not all(name.isdecimal() for name in names) or len({*map(int, names)}) < len(names):
        raise ImageError(
            f"{data} has {len(names)} classes and the network {known} or more",
            allowed="as many, in the network's order, or classes that have its numbers for names",
            remedy="name the network's classes in their order: --task FILE.json with labels",
        )
    places = np.array([*map(int, names)], np.int64)
    classes = tuple(map(str, range(max(known, 1 + int(places.max())))))
    objects = tuple(replace(each, classes=places[each.classes]) for each in images.objects)
    return replace(images, classes=classes, objects=objects)


def _pairs(data: Path, folder: str) -> tuple[ImageSet, list[Array]]:
    """The images in images/ and the picture of each in `folder`, by its stem."""
    images = open_images(data / "images")
    files = {path.stem: path for path in images_in(data / folder)} if (data / folder).is_dir() else {}
    missing = [item for item in images.items if isinstance(item, Path) and item.stem not in files]
    if missing:
        raise ImageError(
            f"{data}: no {folder}/ picture for {missing[0]}", allowed=f"images/NAME.* and {folder}/NAME.png for each"
        )
    return images, [read_image(files[Path(str(item)).stem])[..., 0] for item in images.items]


def _segment(network: Network, data: Path) -> Results:
    images, masks = _pairs(data, "masks")
    found = _decoded(network, images)
    classes = 1 + max([int(mask[mask != UNKNOWN].max(initial=0)) for mask in masks])
    both, either = np.zeros(classes), np.zeros(classes)
    shares = []
    for mask, answer in zip(masks, found, strict=True):
        counted = mask != UNKNOWN
        inside = [((mask == index) & counted, (answer.classes == index) & counted) for index in range(classes)]
        meet = np.array([np.sum(a & b) for a, b in inside])
        join = np.array([np.sum(a | b) for a, b in inside])
        both, either = both + meet, either + join
        shares.append(float(np.mean(meet[join > 0] / join[join > 0])))
    ious = {str(index): both[index] / either[index] for index in range(classes) if either[index]}
    names = network.task.labels
    by_class = {names[int(key)] if int(key) < len(names) else key: {"IoU": float(iou)} for key, iou in ious.items()}
    metrics = {"mIoU": float(np.mean(list(ious.values()))), "mIoU by image": float(np.mean(shares))}
    return DenseResults(len(images), metrics, by_class, tuple(shares))


def _matte(network: Network, data: Path) -> Results:
    """MAD and MSE are means over pixels and images; SAD is the sum of absolute differences in thousands per image."""
    images, alphas = _pairs(data, "alphas")
    mad, mse, sad = [], [], []
    for alpha, answer in zip(alphas, _decoded(network, images), strict=True):
        gap = np.abs(answer.alpha - alpha.astype(np.float32) / 255)
        mad.append(float(gap.mean()))
        mse.append(float((gap**2).mean()))
        sad.append(float(gap.sum()) / 1000)
    metrics = {"MAD": float(np.mean(mad)), "MSE": float(np.mean(mse)), "SAD": float(np.mean(sad))}
    return DenseResults(len(images), metrics, {}, tuple(mad))


def _decoded(network: Network, images: ImageSet) -> list[Any]:
    decode: Any = decoder_of(network.task)
    found: list[Any] = []
    for batch in full_batches(images, network.preprocess, network.batch):
        found += decode(network.predict(batch.rows), batch.placements)
    return found
