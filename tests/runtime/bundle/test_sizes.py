"""A bundle of several image sizes answers at each of them as a bundle of that size alone would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.bundle.write import zip_bundle
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench.peak_memory import MemoryProbe
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Artifact
from eightfold.runtime.bundle.sizes import Size, size_of
from eightfold.runtime.predict.predictor import Predictor
from eightfold.runtime.report.inspection import inspect_bundle
from eightfold.runtime.report.report_bundle import content_of_bundle
from tests.forging import rewrite_manifest

MakeBundle = Callable[..., Path]
OTHER = (6, 12)
PICTURES = [np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 31, 3), (9, 9, 3))] * 3


@pytest.fixture(autouse=True)
def _memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a process for each candidate, and nothing here asks for it."""
    monkeypatch.setattr("eightfold.runtime.bench.bench.probe_memory", lambda *_: MemoryProbe())


@pytest.fixture(params=["stretch", "letterbox", "center-crop"])
def rules(request: pytest.FixtureRequest) -> Preprocess:
    shorter = 10 if request.param == "center-crop" else None
    return Preprocess(height=8, width=8, resize=request.param, shorter_side=shorter)


def answers(bundle: Path, size: int | Size | None = None) -> list[tuple[float, ...]]:
    with Predictor(bundle, size=size, backend="onnxruntime") as predictor:
        return [tuple(score.probability for score in answer.top) for answer in predictor.predict(PICTURES)]


@pytest.mark.parametrize("form", ["directory", "zip"])
def test_every_size_answers_as_if_it_were_alone(
    make_bundle: MakeBundle, rules: Preprocess, form: str, tmp_path: Path
) -> None:
    both = make_bundle(preprocess=rules, sizes=(OTHER,))
    alone = [
        make_bundle(name=str(place), preprocess=rules.at_size(*size)) for place, size in enumerate([(8, 8), OTHER])
    ]
    if form == "zip":
        both = zip_bundle(both, tmp_path / "both.eightfold")
    assert answers(both) == answers(both, 8) == answers(alone[0])
    assert answers(both, OTHER) == answers(alone[1]) != answers(alone[0])


def test_the_choice_names_the_size_where_there_are_several(make_bundle: MakeBundle) -> None:
    with Predictor(make_bundle(sizes=(OTHER,)), size=OTHER, backend="onnxruntime") as predictor:
        assert predictor.describe() == "pruned fp32 on onnxruntime at 6x12 (batch 1, 4): the only one that fits"
        assert (predictor.preprocess.height, predictor.preprocess.width) == OTHER


def test_a_size_that_is_not_there(make_bundle: MakeBundle) -> None:
    with pytest.raises(UsageError, match=r"has size '7x7'; allowed: .* at 8x8, batch 1/4; .* at 6x12, batch 1/4"):
        Predictor(make_bundle(sizes=(OTHER,)), size=7)


@pytest.mark.parametrize("wish", [0, (8,), (8, 8, 8), (8, 0), ("8", 8)])
def test_sizes_that_are_none(wish: Size) -> None:
    with pytest.raises(UsageError, match=r"the size .*; allowed: one side, or \(height, width\), in pixels"):
        size_of(wish)


@pytest.mark.parametrize(
    ("shapes", "nchw", "nhwc"),
    [
        ([(1, 3, 4, 5)], (4, 5), (3, 4)),
        ([(1, 3, 4)], None, None),
        ([(1, 3, 4, 5), (1, 2)], None, None),
        ([(1, 0, 4, 1 << 17)], None, None),
    ],
)
def test_the_size_of_an_artifact(shapes: list[tuple[int, ...]], nchw: Size | None, nhwc: Size | None) -> None:
    inputs = tuple(TensorSpec(name=str(place), dtype="uint8", shape=shape) for place, shape in enumerate(shapes))
    artifact = Artifact(
        id="a", variant="x", format="onnx", precision="fp32", target="any", batch=1, path="x", inputs=inputs,
        outputs=inputs,
    )  # fmt: skip
    assert (artifact.image_size("nchw"), artifact.image_size("nhwc")) == (nchw, nhwc)


def test_sizes_are_measured_beside_each_other_and_compared_with_their_like(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(batches=(1,), variants={"baseline": 1.0, "pruned": 2.0}, sizes=(OTHER,))
    table = bench(bundle, backends=["onnxruntime"], seconds=0.02)
    assert table.baseline == "baseline-fp32-8x8"
    found = {row.name: (row.input_shapes["images"][2:], row.speedup is not None) for row in table.rows}
    assert found == {
        "baseline-fp32-8x8": ((8, 8), False),
        "baseline-fp32-6x12": (OTHER, False),
        "pruned-fp32-8x8": ((8, 8), True),
        "pruned-fp32-6x12": (OTHER, False),
    }


def test_one_size_is_measured_end_to_end(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(variants={"baseline": 1.0, "pruned": 2.0}, sizes=(OTHER,))
    table = bench(bundle, batches=[4], sizes=[OTHER], backends=["onnxruntime"], seconds=0.02, end_to_end=True)
    assert [(row.name, row.speedup is not None) for row in table.rows] == [
        ("baseline-fp32-6x12", False),
        ("pruned-fp32-6x12", True),
    ]


def test_a_size_that_is_not_there_is_not_measured(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(sizes=(OTHER,))
    with pytest.raises(UsageError, match=r"size 7x7 is not in it; allowed: 8x8, 6x12$"):
        bench(bundle, sizes=[8, 7])
    with pytest.raises(UsageError, match=r"size 8x8 is not in it; allowed: the one size of a file, without asking"):
        bench(bundle / "onnx/pruned-8x8-b1.onnx", sizes=[8])


def test_what_is_inside_is_shown_by_size(make_bundle: MakeBundle) -> None:
    lines = [line.split() for line in inspect_bundle(Bundle.open(make_bundle(sizes=(OTHER,)))).splitlines()]
    assert [line[4:7] for line in lines if line[:1] == ["pruned"]] == [["1", "4", "3x8x8"], ["1", "4", "3x6x12"]]


def test_a_report_compares_what_has_one_size(make_bundle: MakeBundle) -> None:
    bundle = make_bundle(batches=(1,), variants={"baseline": 1.0, "pruned": 2.0}, sizes=(OTHER,))
    metrics = [{"name": "top1", "value": value, "data": "images", "images": 9} for value in (0.9, 0.8, 0.7, 0.6)]

    def measured(manifest: dict[str, Any]) -> None:
        for artifact, metric in zip(manifest["artifacts"], metrics, strict=True):
            artifact["metrics"] = [metric]

    rewrite_manifest(bundle, measured)
    table = bench(bundle, backends=["onnxruntime"], seconds=0.02)
    content = content_of_bundle(Bundle.open(bundle), table)
    assert content.subtitle.endswith("nchw float32; also at 12x6")
    assert [card.note for card in content.cards] == ["pruned-fp32-8x8 against baseline-fp32-8x8"]
    changes = [(each.artifact, each.change) for each in content.accuracy]
    assert changes == [
        ("baseline-fp32-8x8-b1", None),
        ("baseline-fp32-6x12-b1", None),
        ("pruned-fp32-8x8-b1", pytest.approx(-20)),
        ("pruned-fp32-6x12-b1", None),
    ]
