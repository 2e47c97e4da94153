"""What a recipe may ask of a detector, and what is said where the parts do not fit each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import EightfoldError, ImageError, ModelError, RecipeError, UnknownNameError, UsageError
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from
from eightfold.recipe_sections import DataSection, TaskSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.tasks.base import Network
from eightfold.tasks.boxed_images import BoxedImages, Objects
from eightfold.tasks.detect import Detect
from eightfold.tasks.kinds import task_of
from eightfold.zoo.datasets.scenes import SceneOptions, scene

SIZE = 32
RECIPE: dict[str, Any] = {
    "name": "boxes",
    "output": "unused",
    "model": {"source": "nets:detector", "weights": "weights.pt"},
    "task": {"kind": "detect", "decode": "yolo-dfl", "options": {"reg_max": 1}},
    "data": {"source": "photos"},
    "preprocess": {"height": SIZE, "width": SIZE, "resize": "letterbox"},
}
REFUSED: dict[str, tuple[dict[str, Any], type[EightfoldError], str]] = {
    "training": (
        {"train": {"epochs": 3}, "task": {"kind": "detect", "decode": "end-to-end"}},
        RecipeError,
        r"train\.epochs is 3 for the decoder 'end-to-end'; allowed: 0 there; .* for yolo-anchors, yolo-dfl; give",
    ),
    "fine-tuning": (
        {"compress": {"finetune": {"epochs": 1}}, "task": {"kind": "detect", "decode": "ssd"}},
        RecipeError,
        r"compress\.finetune\.epochs is 1 for the decoder 'ssd'; .*compress\.compensate: lsq needs images only",
    ),
    "no decoder": (
        {"task": {"kind": "detect"}},
        UnknownNameError,
        "decoder of boxes as task.decode ''; allowed: end-to",
    ),
    "a decoder of scores": (
        {"task": {"kind": "detect", "decode": "classify"}},
        UnknownNameError,
        "allowed: end-to-end, f",
    ),
    "an option it does not have": (
        {"task": {"kind": "detect", "decode": "yolo-dfl", "options": {"anchors": []}}},
        RecipeError,
        r"task\.options: .*anchors.*; allowed: agnostic, iou_threshold",
    ),
    "suppression where there is none": (
        {"export": {"decode": True}, "quantize": {"targets": ["rtx:sm86"]}},
        UsageError,
        "suppression in the graph for rtx:sm86; .*leave decoding to the runtime",
    ),
    "suppression that does not run here": (
        {"export": {"decode": True}, "quantize": {"targets": ["tensorrt:8.2"]}},
        RecipeError,
        "export.decode for tensorrt:8.2; .*measures its graphs on this CPU; leave it out, or decode with: eight",
    ),
    "to decode what is decoded": (
        {"export": {"decode": True}, "task": {"kind": "detect", "decode": "end-to-end"}},
        UsageError,
        "the task's decoder is 'end-to-end'; allowed: a detector without decoding and suppression",
    ),
    "anchors of one size at several": (
        {
            "model": {"source": "ssdlite320_mobilenet_v3_large", "weights": "ssd.pt"},
            "task": {"kind": "detect"},
            "preprocess": {"height": 320, "width": 320},
            "export": {"sizes": [[160, 160]]},
        },
        RecipeError,
        "export.sizes for the decoder 'ssd', whose anchors are for one size; .*make a bundle for each size",
    ),
    "boxes of a classifier": (
        {"export": {"decode": True}, "task": {}},
        RecipeError,
        r"export\.decode for a network that classifies; allowed: networks that detect",
    ),
    "a classifier's decoder": (
        {"task": {"decode": "ssd"}},
        RecipeError,
        r"task\.decode is 'ssd' for a network that classifies; allowed: classify; .*kind: detect",
    ),
}


@pytest.mark.parametrize(("changed", "kind", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_before_anything_is_done(
    changed: dict[str, Any], kind: type[EightfoldError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        run(recipe_from({**RECIPE, **changed}), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def task() -> Detect:
    made = task_of(recipe_from(RECIPE).task)
    assert isinstance(made, Detect)
    return made


def network(task: Detect, outputs: NDArray[np.float32], labels: tuple[str, ...] = ("cup",)) -> Network:
    preprocess = Preprocess(height=SIZE, width=SIZE, resize="letterbox")
    return Network(lambda _: {"head": outputs}, len(outputs), preprocess, task.outputs_mean(labels))


def head(classes: int, batch: int = 1) -> NDArray[np.float32]:
    """One cell of 32 pixels, whose box is 8 pixels away from its borders on the left and on the right."""
    return np.tile(
        np.array([0.25, 0.5, 0.25, 0.5] + [4.0] * classes, np.float32)[None, :, None, None], (batch, 1, 1, 1)
    )


def test_boxes_are_compared_in_the_image(task: Detect) -> None:
    # Half as high as wide: the letterbox shows it in rows 8 to 24 of the tensor, at half its size.
    pixels = np.zeros((32, 64, 3), np.uint8)
    objects = Objects.of([((16.0, 0.0, 48.0, 32.0), 0, False)])
    images = BoxedImages((pixels, pixels, pixels), None, ("cup",), (objects,) * 3)
    assert task.evaluate(network(task, head(1, batch=2)), images) == {"map50-95": 1.0, "map50": 1.0}


def test_a_network_with_more_classes_than_the_images(task: Detect) -> None:
    rows = np.zeros((1, 3, SIZE, SIZE), np.float32)
    task.require_outputs(network(task, head(1)), rows, "net on photos")
    with pytest.raises(
        ModelError, match=r"net on photos: the network knows 2 classes and the images 1; .*task\.labels"
    ):
        task.require_outputs(network(task, head(2)), rows, "net on photos")


def test_outputs_that_the_decoder_does_not_take(task: Detect) -> None:
    with pytest.raises(ModelError, match=r"net on photos: .*name another decoder as task\.decode"):
        task.require_outputs(
            network(task, np.zeros((1, 4, 7), np.float32)), np.zeros((1, 3, SIZE, SIZE)), "net on photos"
        )


def test_images_without_boxes(task: Detect) -> None:
    with pytest.raises(ImageError, match="these images have no boxes"):
        task.evaluate(network(task, head(1)), ImageSet((np.zeros((8, 8, 3), np.uint8),)))


def test_the_task_says_how_decoded_graphs_are_read(task: Detect) -> None:
    assert task.outputs_mean(("cup",), decoded=True) == Task(
        kind="detect", decode="end-to-end", labels=("cup",), options={"score_threshold": 0.25, "max_detections": 300}
    )


def test_data_that_is_not_there(task: Detect, tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"no images at .*absent; allowed: a folder with train/ and test/, one of Pascal"
    ):
        task.write_data(DataSection(source=str(tmp_path / "absent")), tmp_path / "data", seed=0)


def test_the_test_images_have_the_classes_of_the_training_images(task: Detect, tmp_path: Path) -> None:
    for part, name in (("train", "cup"), ("test", "plate")):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "a.png"), np.zeros((8, 8, 3), np.uint8))
        content = {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": 1, "name": name}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        }
        (tmp_path / part / "boxes.json").write_text(json.dumps(content))
    with pytest.raises(ImageError, match="objects of class 'plate'; allowed: cup"):
        task.write_data(DataSection(source=str(tmp_path)), tmp_path / "data", seed=0)
    assert not (tmp_path / "data").exists()


def test_networks_with_a_name_say_how_they_are_read(tmp_path: Path) -> None:
    named = {"model": {"source": "ssdlite320_mobilenet_v3_large", "weights": "ssd.pt"}, "task": {"kind": "detect"}}
    section = Job(recipe_from({**RECIPE, **named}), tmp_path).task.section
    assert (section.decode, section.options["max_detections"]) == ("ssd", 300)
    chosen = {"kind": "detect", "options": {"max_detections": 20}}
    options = Job(recipe_from({**RECIPE, **named, "task": chosen}), tmp_path).task.section.options
    assert options == {**section.options, "max_detections": 20}
    other = {"kind": "detect", "decode": "yolo-boxes"}
    assert Job(recipe_from({**RECIPE, **named, "task": other}), tmp_path).task.section == TaskSection(**other)


def test_scenes_are_generated(tmp_path: Path) -> None:
    """Their boxes are those of the shapes: what the data set says is what `scene` drew."""
    task = task_of(TaskSection(kind="detect", decode="yolo-dfl"))
    data = DataSection(source="scenes:64:5", train_images=3, test_images=2)
    task.write_data(data, tmp_path / "data", seed=7)
    test = task.labelled_images(tmp_path / "data" / "test")
    assert isinstance(test, BoxedImages)
    assert len(test) == 2
    assert len(test.classes) == 5
    drawn = scene(3, SceneOptions(classes=5, size=64, seed=7))
    assert test.objects[0].boxes == pytest.approx(drawn.boxes)
    assert list(test.objects[0].classes) == list(drawn.labels)
    assert task.data_digest(data) == ""


@pytest.mark.parametrize("labels", ["", "cat"])
def test_labelled_test_images_are_a_coco_file(tmp_path: Path, labels: str) -> None:
    """As `eightfold compress --data coco.json` names them, beside images without labels."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 5, 5], "area": 25, "iscrowd": 0}
    image = {"id": 1, "file_name": "a.png", "height": 20, "width": 20}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    task = Detect(TaskSection(kind="detect", decode="yolo-dfl", labels=(labels,) if labels else ()))
    data, file = DataSection(source="photos"), str(tmp_path / "coco.json")
    before = task.test_digest(data, file)
    task.write_test(file, tmp_path / "test")
    assert task.labelled_images(tmp_path / "test").classes == ("cat",)
    (tmp_path / "coco.json").write_text(json.dumps(content | {"annotations": [box | {"bbox": [3, 2, 5, 5]}]}))
    assert task.test_digest(data, file) != before
