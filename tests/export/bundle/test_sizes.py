"""One bundle of several image sizes: at each it answers exactly as a bundle of that size alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.compare.compare_bundles import compare_bundles
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.postprocess.results import Detections
from eightfold.runtime.predict.predictor import Predictor
from tests.export.networks import graph, saved

SQUARE = Preprocess(height=32, width=32, resize="center-crop", shorter_side=36, mean=(0.4, 0.5, 0.6), std=(0.2,))
WIDE = (24, 40)
PICTURES = list(np.random.default_rng(0).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8))


class Pooled(torch.nn.Module):
    """A classifier that takes every size, and whose weights lie in its convolutions."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(channels)
        self.body = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.head = torch.nn.Linear(channels, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        felt = torch.relu(self.norm(self.stem(images)))
        answer: torch.Tensor = self.head(torch.relu(self.body(felt) + felt).mean((2, 3)))
        return answer


class Placed(torch.nn.Module):
    """Adds a table of places that is stretched to the size of the image, as vision transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.nn.Parameter(torch.randn(1, 64, 8, 8))
        self.patches = torch.nn.Conv2d(3, 64, 4, stride=4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images)
        places = torch.nn.functional.interpolate(self.places, tokens.shape[2:], mode="bilinear")
        answer: torch.Tensor = torch.tanh(tokens + places).flatten(2).amax(2)
        return answer


class BrightCells(torch.nn.Module):
    """Boxes (4 + 1, N) of the cells of a grid, whose score is the brightness, as ultralytics' detectors give them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)
        height, width = scores.shape[2:]
        y, x = torch.meshgrid(_centres(height), _centres(width), indexing="ij")
        cells = torch.stack([x, y, torch.full_like(x, 8.0), torch.full_like(x, 8.0)]).flatten(1)
        return torch.cat([cells.expand(len(images), -1, -1), scores.flatten(2)], 1)


def _centres(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32) * 8 + 4


def seeded(kind: type[torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def tensors(bundle: Path, size: Size | None = None) -> list[NDArray[np.float32]]:
    with Predictor(bundle, size=size, backend="onnxruntime", threads=1) as predictor:
        return [next(iter(answer.arrays.values())) for answer in predictor.predict(PICTURES)]


@pytest.mark.parametrize(("kind", "pixels"), [(Pooled, True), (Placed, False)])
def test_every_size_answers_as_if_it_were_alone(kind: type[torch.nn.Module], pixels: bool, tmp_path: Path) -> None:
    net = seeded(kind)
    both = export_bundle(
        net, tmp_path / "both.eightfold", preprocess=SQUARE, sizes=[WIDE], batches=[2], preprocess_in_graph=pixels
    )
    for size in ((32, 32), WIDE):
        alone = export_bundle(
            net, tmp_path / f"{size}", preprocess=SQUARE.at_size(*size), batches=[2], preprocess_in_graph=pixels
        )
        np.testing.assert_array_equal(tensors(both, size), tensors(alone))
        rows = np.stack([SQUARE.at_size(*size)(picture) for picture in PICTURES])
        with torch.no_grad():
            expected = net(torch.from_numpy(rows))
        np.testing.assert_allclose(tensors(both, size), expected, atol=1e-4)
    assert [artifact.id for artifact in Bundle.open(both).manifest.artifacts] == [
        f"{kind.__name__}-{size}-b2" for size in ("32x32", "24x40")
    ]
    np.testing.assert_array_equal(tensors(both), tensors(both, (32, 32)))


def test_each_size_was_compared_with_the_source(tmp_path: Path) -> None:
    path = export_bundle(seeded(Pooled), tmp_path / "b", preprocess=SQUARE, sizes=[WIDE], images=PICTURES)
    for artifact in Bundle.open(path).manifest.artifacts:
        step = artifact.steps[0]
        assert step.name == "export"
        assert step.max_rel_error is not None
        assert step.max_rel_error < 1e-4
        assert any(note.startswith("on 3 images") for note in step.notes), step.notes


def test_weights_of_all_sizes_are_stored_once(tmp_path: Path) -> None:
    net = Pooled(channels=192).eval()
    one = export_bundle(net, tmp_path / "one", preprocess=SQUARE)
    many = export_bundle(net, tmp_path / "many", preprocess=SQUARE, sizes=[WIDE], batches=(1, 2, 4))
    (graph_file,) = (one / "onnx").iterdir()
    assert sum(file.stat().st_size for file in many.rglob("*")) < 1.1 * graph_file.stat().st_size


@pytest.mark.parametrize("decode", [False, True])
def test_boxes_of_every_size_lie_on_the_image(decode: bool, tmp_path: Path) -> None:
    picture = np.zeros((120, 200, 3), np.uint8)
    picture[72:88, 136:152] = 255
    rules = Preprocess(height=96, width=160, resize="letterbox", pad_value=0)
    task = Task(kind="detect", decode="yolo-boxes", options={"score_threshold": 0.3})
    path = export_bundle(
        seeded(BrightCells), tmp_path / "b", preprocess=rules, sizes=[320, (64, 96)], task=task, decode=decode
    )
    for size in (None, (320, 320), (64, 96)):
        with Predictor(path, size=size, backend="onnxruntime") as predictor:
            found = predictor.predict(picture)
        assert isinstance(found, Detections)
        assert len(found)
        scale = predictor.preprocess.place(120, 200).resized[0] / 120
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        # Cells are 8 pixels of the tensor wide: one that is bright has its centre within as much of the square.
        assert (abs(centres - (144, 80)) < 8 + 4 / scale).all(), (size, centres)


def test_a_size_twice_is_one_size(tmp_path: Path) -> None:
    path = export_bundle(seeded(Pooled), tmp_path / "b", preprocess=SQUARE, sizes=[32, (32, 32)], name="net")
    assert [artifact.id for artifact in Bundle.open(path).manifest.artifacts] == ["net-b1"]


def test_a_file_of_one_size_has_no_others(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    file = saved(graph(nodes, {"x": ["n", 3, 32, 32]}, {"y": ["n", 3, 32, 32]}), tmp_path / "x.onnx")
    words = (
        r"several sizes of .*x\.onnx, which is fixed at 32x32; allowed: 32x32; export the network again with dynamic"
    )
    with pytest.raises(UsageError, match=words):
        export_bundle(file, tmp_path / "b", preprocess=SQUARE, sizes=[WIDE])
    assert not (tmp_path / "b").exists()


def test_a_dynamic_file_has_every_size(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalMaxPool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    file = saved(graph(nodes, {"x": ["n", "h", "w", 3]}, {"y": ["n", "h"]}), tmp_path / "x.onnx")
    path = export_bundle(file, tmp_path / "b", preprocess=SQUARE, sizes=[WIDE])
    assert Bundle.open(path).manifest.sizes == ((32, 32), WIDE)
    for size in ((32, 32), WIDE):
        rows = np.stack([SQUARE.at_size(*size)(picture) for picture in PICTURES])
        np.testing.assert_array_equal(tensors(path, size), rows.max((1, 3)))


def test_grids_hold_for_one_size(tmp_path: Path) -> None:
    task = Task(kind="detect", decode="retinanet", options={"grids": [[4, 4]]})
    with pytest.raises(UsageError, match=r"decoder 'retinanet' at 32x32 and 24x40; allowed: one size, .*'grids'"):
        export_bundle(seeded(Pooled), tmp_path / "b", preprocess=SQUARE, sizes=[WIDE], task=task)


def test_bundles_are_compared_size_by_size(tmp_path: Path) -> None:
    net = seeded(Pooled)
    both = export_bundle(net, tmp_path / "both", preprocess=SQUARE, sizes=[WIDE], name="net")
    alone = export_bundle(net, tmp_path / "alone", preprocess=SQUARE.at_size(*WIDE), batches=(1, 2), name="net")
    found = compare_bundles(both, alone)
    assert [(pair.first, pair.second) for pair in found.pairs] == [(f"{both}:net-24x40-b1", f"{alone}:net-b1")]
    assert found.pairs[0].outputs[0].max_abs_error == 0
    assert [pair.first for pair in compare_bundles(both, both, size=32).pairs] == [f"{both}:net-32x32-b1"]
    with pytest.raises(UsageError, match=r"share nothing of the size 8x8; allowed: 32x32, 24x40"):
        compare_bundles(both, both, size=8)
