from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.errors import BackendError, BundleError, ImageError, IntegrityError, UsageError
from eightfold.runtime.predict.predictor import Predictor
from tests.forging import rewrite_manifest

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def picture(colour: str, size: int = 20) -> NDArray[np.uint8]:
    return np.full((size, size, 3), COLOURS[colour], np.uint8)


def test_one_image_gives_one_answer(bundle_path: Path) -> None:
    with Predictor(bundle_path) as predictor:
        answer = predictor.predict(picture("green"))
    assert answer.label == "green"
    # softmax of (0, 10, 0)
    assert answer.probability == pytest.approx(1 / (1 + 2 * np.exp(-10)), abs=1e-6)
    assert [score.label for score in answer.top] == ["green", "red", "blue"]


def test_many_images_are_packed_and_come_back_in_order(bundle_path: Path) -> None:
    names = ["red", "blue", "green", "green", "red", "blue", "red"]
    with Predictor(bundle_path) as predictor:
        answers = predictor.predict([picture(name, 5 + index) for index, name in enumerate(names)])
    assert [answer.label for answer in answers] == names


def test_a_lone_batch_size_is_padded(make_bundle: Callable[..., Path]) -> None:
    with Predictor(make_bundle(batches=(1, 4)), batch=4) as predictor:
        assert predictor.choice.batches == (4,)
        assert [answer.label for answer in predictor.predict([picture("red")] * 5)] == ["red"] * 5


def test_files_are_read(bundle_path: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "blue.png"), picture("blue")[..., ::-1])
    with Predictor(bundle_path) as predictor:
        assert predictor.predict(tmp_path / "blue.png").label == "blue"


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_run_takes_any_number_of_rows(bundle_path: Path, count: int) -> None:
    rows = np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)
    with Predictor(bundle_path) as predictor:
        outputs = predictor.run(rows)
    np.testing.assert_allclose(outputs["logits"], 10 * rows.mean(axis=(2, 3)), rtol=1e-5, atol=1e-6)


def test_outputs_of_run_belong_to_the_caller(bundle_path: Path) -> None:
    rows = np.ones((1, 3, 8, 8), np.float32)
    with Predictor(bundle_path) as predictor:
        first = predictor.run(rows)["logits"]
        predictor.run(rows * 2)
    np.testing.assert_allclose(first, 10)


def test_run_accepts_strided_arrays(bundle_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
    with Predictor(bundle_path) as predictor:
        outputs = predictor.run(rows.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(outputs["logits"], 10 * rows.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_threads_share_one_predictor(bundle_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 1, 3, 8, 8)).astype(np.float32)
    with Predictor(bundle_path, in_flight=2) as predictor, ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(lambda row: predictor.run(row)["logits"], list(rows) * 5))
    expected = 10 * rows.mean(axis=(3, 4))
    np.testing.assert_allclose(outputs, np.concatenate([expected] * 5), rtol=1e-5, atol=1e-6)


def test_the_choice_is_explained(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle(variants={"baseline": 1.0, "pruned": 10.0})
    text = Predictor(bundle, backend="onnxruntime").describe()
    assert text == "pruned fp32 on onnxruntime (batch 1, 4): the only one that fits"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (np.zeros((1, 3, 8, 8)), "dtype float64; allowed: float32"),
        (np.zeros((1, 3, 9, 8), np.float32), r"shape \(1, 3, 9, 8\); allowed: \(1, 3, 8, 8\)"),
        (np.zeros((1, 1, 8, 8), np.float32), r"shape \(1, 1, 8, 8\)"),
        ({"picture": np.zeros((1, 3, 8, 8), np.float32)}, "inputs named 'picture'; allowed: 'images'"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "'images' holds NaN or infinity; allowed: finite numbers"),
        (np.full((1, 3, 8, 8), -np.inf, np.float32), "'images' holds NaN or infinity"),
        ({"images": [[1.0]]}, "input 'images' is a list; allowed: a numpy array"),
        ({}, "inputs hold no rows"),
        (np.zeros((), np.float32), "inputs hold no rows"),
    ],
)
def test_wrong_tensors_are_refused_and_the_predictor_stays_usable(bundle_path: Path, arrays: Any, message: str) -> None:
    with Predictor(bundle_path) as predictor:
        with pytest.raises(BackendError, match=message):
            predictor.run(arrays)
        assert predictor.predict(picture("red")).label == "red"


def test_no_images(bundle_path: Path) -> None:
    with Predictor(bundle_path) as predictor, pytest.raises(UsageError, match="no images; allowed: one or more"):
        predictor.predict([])


def test_no_rows(bundle_path: Path) -> None:
    with Predictor(bundle_path) as predictor, pytest.raises(UsageError, match="no images"):
        predictor.run(np.zeros((0, 3, 8, 8), np.float32))


def test_a_zero_size_image(bundle_path: Path) -> None:
    with Predictor(bundle_path) as predictor, pytest.raises(ImageError, match="zero size"):
        predictor.predict(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5, 3), np.float32), r"shape \(5, 5, 3\) and type float32; allowed: .*uint8; convert it first"),
        (np.zeros((5, 5, 7), np.uint8), r"shape \(5, 5, 7\) and type uint8; allowed: "),
        (np.zeros(5, np.uint8), r"shape \(5,\) and type uint8; allowed: "),
        (None, r"an image of type NoneType; allowed: a path, an array \(H, W, 3\) of uint8, or a list of these"),
        ((each for each in [1]), "an image of type generator"),
        ([[1, 2]], "an image of type list; .*numpy.asarray turns"),
        ("no such file.png", "cannot read no such file.png"),
    ],
)
def test_images_that_are_none(bundle_path: Path, image: Any, message: str) -> None:
    with Predictor(bundle_path) as predictor:
        with pytest.raises(ImageError, match=message):
            predictor.predict(image)
        assert predictor.predict(picture("red")).label == "red"


def test_a_truncated_bundle(bundle_path: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", bundle_path))
    with Predictor(archive) as predictor:
        assert predictor.predict(picture("red")).label == "red"
    for share in (0.2, 0.9):
        cut = tmp_path / "cut.eightfold"
        cut.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
        with pytest.raises(BundleError, match=r"cut\.eightfold is not a bundle .*a complete \.eightfold file"):
            Predictor(cut)


def test_no_back_end_at_all(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.predict.predictor.usable_backends", lambda: [])
    with pytest.raises(BackendError, match=r"nothing in this bundle runs here; it holds onnx for any"):
        Predictor(bundle_path)


def test_a_batch_that_is_not_there(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing in this bundle has batch 3; allowed: .*batch 1/4"):
        Predictor(bundle_path, batch=3)


def test_a_precision_that_is_not_there(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing in this bundle has precision 'int8'"):
        Predictor(bundle_path, precision="int8")


def test_a_file_deleted_before_its_batch_is_needed(bundle_path: Path) -> None:
    with Predictor(bundle_path) as predictor:
        assert predictor.predict(picture("red")).label == "red"
        (bundle_path / "onnx/pruned-b4.onnx").unlink()
        with pytest.raises(IntegrityError, match=r"pruned-b4\.onnx is missing"):
            predictor.predict([picture("red")] * 4)
        assert predictor.predict(picture("blue")).label == "blue"


def test_preprocessing_that_does_not_fit_the_network(bundle_path: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from eightfold.runtime.bundle.bundle import Bundle

    bundle = Bundle.open(bundle_path)
    other = bundle.manifest.preprocess.model_copy(update={"color": "grey", "channels": 1})
    wrong = replace(bundle, manifest=bundle.manifest.model_copy(update={"preprocess": other}))
    message = r"the network takes float32 \(3, 8, 8\), and the bundle's preprocessing gives float32 \(1, 8, 8\)"
    with Predictor(wrong) as predictor:
        with pytest.raises(BundleError, match=message):
            predictor.predict(picture("red"))
        predictor.run(np.zeros((1, 3, 8, 8), np.float32))


@pytest.mark.parametrize("change", [{"name": "boxes"}, {"dtype": "float16"}, {"shape": [1, 7]}])
def test_a_manifest_that_is_wrong_about_the_tensors(bundle_path: Path, change: dict[str, Any]) -> None:
    def spoil(manifest: dict[str, Any]) -> None:
        for artifact in manifest["artifacts"]:
            artifact["outputs"][0].update(change)

    rewrite_manifest(bundle_path, spoil)
    with pytest.raises(BundleError, match="has other inputs or outputs than the manifest"):
        Predictor(bundle_path, batch=1).predict(picture("red"))


def test_a_closed_predictor(bundle_path: Path) -> None:
    predictor = Predictor(bundle_path)
    predictor.close()
    with pytest.raises(UsageError, match="closed"):
        predictor.predict(picture("red"))


def test_an_error_in_a_thread_leaves_the_others_alone(bundle_path: Path) -> None:
    good = np.ones((1, 3, 8, 8), np.float32)
    failures: list[BackendError] = []

    def work(predictor: Predictor, index: int) -> None:
        try:
            predictor.run(good if index % 2 else good.astype(np.float64))
        except BackendError as error:
            failures.append(error)

    with Predictor(bundle_path, in_flight=1) as predictor:
        threads = [threading.Thread(target=work, args=(predictor, index)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(failures) == 10
        np.testing.assert_allclose(predictor.run(good)["logits"], 10)
