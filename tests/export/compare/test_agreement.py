from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ImageError, UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.compare.agreement import compare_classifiers
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.compare.runnables import runnable_of
from eightfold.export.torch.onnx_export import export_onnx
from tests.export.networks import DictNet, SmallNet, small_net

PREPROCESS = Preprocess(height=16, width=16)


def _images(count: int = 11) -> ImageSet:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(count)]
    return open_images(pictures, labels=[int(label) for label in rng.integers(0, 5, count)])


def _spread(seed: int) -> SmallNet:
    """Its answers differ from image to image."""
    net = small_net(seed)
    torch.nn.init.normal_(net.stem[0].weight, std=2)  # type: ignore[arg-type]  # a parameter, typed as a module
    torch.nn.init.normal_(net.head.weight, std=20)
    return net.eval()


def _answers(net: SmallNet, images: ImageSet) -> list[int]:
    with torch.no_grad():
        rows = torch.from_numpy(np.stack([PREPROCESS(each) for each in images]))
        return [int(place) for place in net(rows).argmax(1)]


@pytest.mark.parametrize("batch", [1, 4])
def test_each_runs_at_its_own_batch(batch: int, tmp_path: Path) -> None:
    first, second, images = _spread(0), _spread(1), _images()
    file = export_onnx(second, tmp_path / "net.onnx", batch=batch, image_size=16)
    found = compare_classifiers(runnable_of(first), runnable_of(file), images, (PREPROCESS, PREPROCESS))
    one, other = _answers(first, images), _answers(second, images)
    assert len(set(other)) > 1
    assert found.images == 11
    assert found.first_value == pytest.approx(np.mean(np.equal(one, images.labels or ())))
    assert found.second_value == pytest.approx(np.mean(np.equal(other, images.labels or ())))
    assert found.agreement == pytest.approx(np.mean(np.equal(one, other)))


def test_it_is_part_of_a_comparison_and_a_bundle_knows_how_to_prepare(tmp_path: Path) -> None:
    net, images = _spread(0), _images()
    bundle = export_bundle(net, tmp_path / "net.eightfold", preprocess=PREPROCESS, name="net")
    comparison = compare_artifacts(net, bundle, labelled=images)
    assert comparison.agreement is not None
    assert comparison.agreement.agreement == 1
    assert "the two agree on 100.00%" in comparison.describe()
    with pytest.raises(UsageError, match="labelled images without a Preprocess"):
        compare_artifacts(net, net, labelled=images, image_shape=(1, 3, 16, 16))


def test_without_labels() -> None:
    net = runnable_of(_spread(0))
    unlabelled = open_images([np.zeros((16, 16, 3), np.uint8)])
    with pytest.raises(ImageError, match="no labels; allowed: a folder for each label"):
        compare_classifiers(net, net, unlabelled, (PREPROCESS, PREPROCESS))


def test_what_is_no_classifier() -> None:
    net = runnable_of(DictNet())
    with pytest.raises(UsageError, match=r"DictNet puts out \(8, 8, 8, 8\), \(8, 8\); allowed: scores"):
        compare_classifiers(net, net, _images(), (PREPROCESS, PREPROCESS))


def test_images_of_another_size_are_no_input(tmp_path: Path) -> None:
    from eightfold.errors import CalibrationError

    file = runnable_of(export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16))
    assert onnx.load(tmp_path / "net.onnx").graph.node
    with pytest.raises(CalibrationError, match=r"\(3, 8, 8\); allowed: \(3, 16, 16\)"):
        compare_classifiers(file, file, _images(), (Preprocess(height=8, width=8),) * 2)
