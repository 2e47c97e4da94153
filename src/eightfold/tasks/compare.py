"""Measures the difference between two detectors on images with boxes: the mean average precision of each."""

from __future__ import annotations

from pathlib import Path

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.compare.agreement import Agreement, compare_classifiers
from eightfold.export.compare.runnables import Runnable
from eightfold.files import PathLike
from eightfold.recipe_sections import TaskSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.report.report_format import metric_label
from eightfold.tasks.base import Network
from eightfold.tasks.boxed_images import BoxedImages
from eightfold.tasks.boxes import from_coco, open_part
from eightfold.tasks.detect import Detect


def compare_by_task(
    first: Runnable, second: Runnable, images: PathLike, preprocess: tuple[Preprocess, Preprocess]
) -> Agreement:
    """`compare_detectors` where one of the two is from a detector's bundle, `compare_classifiers` otherwise."""
    kinds = {each.owner.manifest.task.kind for each in (first, second) if each.owner is not None}
    judge = compare_detectors if "detect" in kinds else compare_classifiers
    return judge(first, second, images, preprocess)


def compare_detectors(
    first: Runnable, second: Runnable, images: PathLike, preprocess: tuple[Preprocess, Preprocess]
) -> Agreement:
    """Run two detectors, each at its own batch, on the same images, and compare what they find with what is there.

    Args:
        first, second: what `runnable_of` opens; one at least from a bundle, which says how outputs are read.
        images: a COCO .json, or a folder or a YOLO .yaml whose test images count.
        preprocess: makes the input of either.

    Raises:
        ImageError: the images have no boxes, or cannot be read.
        UsageError: neither is from a bundle.
    """
    tasks = _task(first, second), _task(second, first)
    opened = _opened(Path(images), tasks[0].labels)
    metric, values = Detect.metrics[0], []
    for subject, task, rules in zip((first, second), tasks, preprocess, strict=True):
        network = _network(subject, task, rules)
        values.append(Detect(TaskSection(kind="detect", decode=task.decode)).evaluate(network, opened)[metric])
    return Agreement(
        first=first.name,
        second=second.name,
        metric=metric_label(metric),
        first_value=values[0],
        second_value=values[1],
        images=len(opened),
    )


def _task(subject: Runnable, other: Runnable) -> Task:
    owner = subject.owner or other.owner
    if owner is None:
        raise UsageError("two detectors without a bundle", allowed="one from a bundle, which names the decoder")
    return owner.manifest.task


def _opened(path: Path, labels: tuple[str, ...]) -> BoxedImages:
    return from_coco(path, labels) if path.suffix == ".json" else open_part(path, "test", None, labels)


def _network(subject: Runnable, task: Task, rules: Preprocess) -> Network:
    name, batch = (subject.inputs[0].name, subject.inputs[0].shape[0]) if subject.inputs else ("images", 1)

    def predict(rows: Array) -> Arrays:
        return subject.run(subject.fed({name: rows}))

    return Network(predict, batch, rules, task)
