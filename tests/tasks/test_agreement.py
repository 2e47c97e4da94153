"""Agreement with the original: 1 for itself, the known share for a network that is known to differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from eightfold.arrays import Array
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError, ModelError, RecipeError
from eightfold.recipe import recipe_from
from eightfold.recipe_sections import DataSection, TaskSection
from eightfold.runtime.bundle.manifest import Task
from eightfold.tasks.agreement import AgreementTask
from eightfold.tasks.answers import save_answers, with_answers
from eightfold.tasks.base import Network
from eightfold.tasks.kinds import AGREEMENTS
from eightfold.tasks.photos import is_unlabelled, open_photos, write_photos

SIDE = 32
PREPROCESS = Preprocess(height=SIDE, width=SIDE)
COUNT = 10
IMAGES = ImageSet(tuple(np.full((SIDE, SIDE, 3), 20 * place, np.uint8) for place in range(COUNT)))


def network(task: Task, answer: Any) -> Network:
    """One that answers by the brightness of each image, 0 to 9."""

    def predict(rows: Array) -> dict[str, Array]:
        return {"output": np.stack([answer(round(float(row.mean()) * 255 / 20)) for row in rows]).astype(np.float32)}

    return Network(predict, 2, PREPROCESS, task)


def measured(kind: str, decode: str, first: Any, second: Any, tmp_path: Path) -> dict[str, float]:
    """Agreement of `second` with `first`; that of `first` with itself is 1 in every metric."""
    section = TaskSection.model_validate({"kind": kind, "decode": decode})
    task = AGREEMENTS[kind](section)
    outputs = task.outputs_mean(())
    save_answers(task.answers(network(outputs, first), IMAGES), tmp_path / "answers.npz")
    images = with_answers(IMAGES, tmp_path / "answers.npz")
    assert set(task.evaluate(network(outputs, first), images).values()) == {1.0}
    found = task.measure(network(outputs, second), images)
    assert list(found.values) == list(task.metrics)
    assert len(found.parts) == COUNT
    return found.values


def test_the_share_of_equal_classes(tmp_path: Path) -> None:
    def other(place: int) -> Array:
        row: Array = np.eye(COUNT)[place if place < 7 else 0]
        return row

    assert measured("classify", "", np.eye(COUNT).__getitem__, other, tmp_path) == {"agreement-top1": 0.7}


def test_the_overlap_of_maps(tmp_path: Path) -> None:
    """Class 1 in the left half; moved by a quarter of the width, each class overlaps by 1/3 of its union."""

    def halves(shift: int) -> Any:
        def answer(place: int) -> Array:
            marked = np.zeros((8, 8))
            marked[:, shift : 4 + shift] = 1
            return np.stack((1 - marked, marked))

        return answer

    found = measured("segment", "segment", halves(0), halves(2), tmp_path)
    assert found["agreement-iou"] == pytest.approx(1 / 3)


def test_the_error_of_mattes_and_the_cosine_of_tensors(tmp_path: Path) -> None:
    found = measured("matte", "matte", lambda _: np.full((1, 4, 4), 0.75), lambda _: np.full((1, 4, 4), 0.5), tmp_path)
    assert found["agreement-mae"] == pytest.approx(0.75)
    found = measured("tensors", "tensors", lambda _: np.array([1.0, 0.0]), lambda _: np.array([1.0, 1.0]), tmp_path)
    assert found["agreement-cosine"] == pytest.approx(1 / np.sqrt(2))


def boxes(*rows: tuple[float, ...]) -> Array:
    return np.array([*rows, *[(0.0,) * 6] * (3 - len(rows))])


def test_average_precision_against_the_originals_detections(tmp_path: Path) -> None:
    """Of two objects in each image, the other network finds the first, and one elsewhere with a lower score."""
    pytest.importorskip("faster_coco_eval", reason="the extra [coco] is not installed")
    first = boxes((2, 2, 12, 12, 0.9, 1), (16, 16, 30, 30, 0.8, 1))
    second = boxes((2, 2, 12, 12, 0.9, 1), (0, 20, 8, 30, 0.1, 1))
    found = measured("detect", "end-to-end", lambda _: first, lambda _: second, tmp_path)
    assert found["agreement-map50"] == pytest.approx(0.5, abs=0.01)  # COCO samples recall at 101 points
    assert found["agreement-map50-95"] == pytest.approx(0.5, abs=0.01)


def test_the_score_of_a_graph_is_its_agreement_with_the_reference(tmp_path: Path) -> None:
    """Logits -x and +x of the mean brightness x part wherever the image is not black."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2,3,32,32] x) => (float[2,2] y) <float[1,2] w = {{-1, {slope}}}, float[2] b = {{0.1, 0}}> {{
            m = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)
            shape = Constant <value = int64[2] {{2, 1}}> ()
            r = Reshape (m, shape)
            p = MatMul (r, w)
            y = Add (p, b)
        }}
    """
    paths = []
    for slope in (1, -1.5):
        paths.append(tmp_path / f"{slope}.onnx")
        onnx.save(onnx.parser.parse_model(text.format(slope=slope)), str(paths[-1]))
    score = AGREEMENTS["classify"](TaskSection(kind="classify")).score(IMAGES, PREPROCESS, paths[0])
    assert (score.name, score.unit) == ("agreement-top1", "%")
    assert score.of(paths[0]) == 100
    black = sum(20 * place / 255 <= 0.05 for place in range(COUNT))  # where 0.1 - x beats x
    assert score.of(paths[1]) == pytest.approx(100 * black / COUNT)


def test_an_original_that_finds_nothing_is_one_line() -> None:
    task = AGREEMENTS["detect"](TaskSection(kind="detect", decode="end-to-end"))
    with pytest.raises(ImageError, match=r"finds nothing on the held-out images; allowed: .*score_threshold"):
        task.answers(network(task.outputs_mean(()), lambda _: boxes()), IMAGES)


def test_outputs_that_the_decoder_does_not_read_are_one_line() -> None:
    task = AGREEMENTS["detect"](TaskSection(kind="detect", decode="yolo-boxes"))
    with pytest.raises(ModelError, match="net: the outputs do not fit the decoder 'yolo-boxes'"):
        task.require_outputs(
            network(task.outputs_mean(()), lambda _: np.zeros(7)), np.zeros((2, 3, SIDE, SIDE), np.float32), "net"
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"epochs": 1}}, r"train\.epochs is 1 for images without labels"),
    ],
)
def test_a_recipe_that_asks_for_labels_is_refused(change: dict[str, Any], words: str) -> None:
    plain = {"name": "n", "output": "o", "model": {"source": "x"}, "data": {"source": "photos"}}
    recipe = recipe_from({**plain, "preprocess": {"height": 8, "width": 8}, **change})
    task: AgreementTask = AGREEMENTS["classify"](TaskSection(kind="classify"))
    with pytest.raises(RecipeError, match=words):
        task.check(recipe)


def test_photos_are_divided_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
    source = tmp_path / "photos"
    source.mkdir()
    for place in range(8):
        cv2.imwrite(str(source / f"{place}.png"), np.full((4, 4, 3), place, np.uint8))
    (source / "broken.jpg").write_bytes(b"no picture")
    assert is_unlabelled(str(source))
    cv2.imwrite(str(source / "deep.png"), np.full((4, 4, 3), 4000, np.uint16))
    preprocess = Preprocess(height=4, width=4)
    with pytest.warns(UserWarning, match=r"2 images in .* cannot be read and are left out, the first: "):
        write_photos(DataSection(source=str(source)), tmp_path / "data", seed=0, preprocess=preprocess)
    parts = {
        part: {p.read_bytes() for p in (tmp_path / "data" / part / "images").iterdir()} for part in ("train", "test")
    }
    assert (len(parts["train"]), len(parts["test"])) == (6, 2)
    assert not parts["train"] & parts["test"]
    for path in source.glob("*.png"):
        path.unlink()
    with pytest.raises(ImageError, match=r"none of the 1 images in .* can be read \(.*broken.jpg .*; allowed: JPEG"):
        write_photos(DataSection(source=str(source)), tmp_path / "none", seed=0)
    assert not (tmp_path / "none").exists()


def test_the_folder_above_a_labelled_data_set_is_no_set_of_photos(tmp_path: Path) -> None:
    """Its test images would be among those that the network is fitted to."""
    cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
    for part in ("train", "test"):
        folder = tmp_path / "flowers" / part / "rose"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "0.png"), np.full((4, 4, 3), len(part), np.uint8))
    assert is_unlabelled(str(tmp_path))
    with pytest.raises(ImageError, match=r"has no train/LABEL/\* .*; did you mean .*flowers\?"):
        open_photos(str(tmp_path))
    cv2.imwrite(str(tmp_path / "own.png"), np.zeros((4, 4, 3), np.uint8))
    assert len(open_photos(str(tmp_path))) == 3
