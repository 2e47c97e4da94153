"""A bundle that holds several sizes of images: the same one is picked in C++ as in Python, and fed in the same way."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.native import NativeEngine, NativeError
from tests.cpp.networks import save_network
from tests.cpp.test_parity import compare, picture, predictions_of
from tests.export.bundle.test_sizes import BrightCells, Pooled, seeded

MakeBundle = Callable[..., Path]
TASK = Task(kind="classify", decode="classify")
SMALL, USUAL, WIDE = (16, 16), (32, 48), (32, 64)
USUAL_PREPROCESS = Preprocess(height=USUAL[0], width=USUAL[1])
# Variant, precision, size and batch: what a choice is made among.
Network = tuple[str, str, Size, int]
BUNDLES: dict[str, tuple[Network, ...]] = {
    "one size": (("pruned", "fp32", USUAL, 1), ("pruned", "fp32", USUAL, 4)),
    "one that is not the default": (("pruned", "fp32", WIDE, 1),),
    "default last": (
        ("pruned", "int8", SMALL, 1),
        ("pruned", "fp32", SMALL, 1),
        ("pruned", "fp32", USUAL, 1),
        ("pruned", "fp32", USUAL, 4),
        ("pruned", "int8", USUAL, 4),
    ),
    "no default": (("pruned", "fp32", WIDE, 1), ("pruned", "fp32", SMALL, 1), ("pruned", "int8", SMALL, 2)),
    "default of the baseline alone": (("baseline", "fp32", USUAL, 1), ("pruned", "fp32", SMALL, 1)),
}


def make(folder: Path, networks: Sequence[Network], table: LatencyTable | None = None) -> Path:
    """What is called int8 is so by name only."""
    artifacts, files, documents = [], {}, {}
    for variant, precision, (height, width), batch in networks:
        name = f"{variant}-{precision}-{height}x{width}-b{batch}"
        source = folder / f"{height}x{width}-b{batch}.onnx"
        save_network(source, USUAL_PREPROCESS.at_size(height, width), {"logits": (3,)}, batch)
        files[f"{name}.onnx"] = source
        made = onnx_artifact(source, id=name, inside=f"{name}.onnx", variant=variant)
        artifacts.append(made.model_copy(update={"precision": precision}))
    if table is not None:
        table.save(folder / "latency.json")
        files["latency.json"], documents["latency"] = folder / "latency.json", "latency.json"
    return write_bundle(
        folder / ("measured" if table else "plain"),
        name="test",
        task=TASK,
        preprocess=USUAL_PREPROCESS,
        artifacts=artifacts,
        files=files,
        documents=documents,
    )


def native_choice(library: ctypes.CDLL, bundle: Path, wish: dict[str, Any], size: Size | None) -> str:
    height, width = size or (0, 0)
    try:
        return NativeEngine(library, bundle, backend="onnxruntime", height=height, width=width, **wish).describe()
    except NativeError as error:
        return error.status


def python_choice(bundle: Path, wish: dict[str, Any], size: Size | None) -> str:
    try:
        with Predictor(bundle, backend="onnxruntime", size=size, **wish) as predictor:
            return predictor.choice.describe()
    except UsageError:
        return "usage"
    except BackendError:
        return "missing_backend"


WISHES: list[dict[str, Any]] = [
    {},
    {"precision": "fp32"},
    {"precision": "int8"},
    {"batch": 1},
    {"batch": 4},
    {"variant": "pruned"},
    {"variant": "baseline"},
    {"precision": "fp32", "batch": 2},
]


@pytest.mark.parametrize("networks", BUNDLES.values(), ids=BUNDLES)
def test_the_same_is_picked_whatever_is_asked_for(
    library: ctypes.CDLL, tmp_path: Path, networks: tuple[Network, ...]
) -> None:
    bundle = make(tmp_path, networks)
    for wish, size in itertools.product(WISHES, [None, SMALL, USUAL, WIDE, USUAL[::-1]]):
        expected = python_choice(bundle, wish, size)
        assert native_choice(library, bundle, wish, size) == expected, (wish, size)


def test_the_default_size_comes_before_times_and_a_wish_before_both(library: ctypes.CDLL, tmp_path: Path) -> None:
    networks = BUNDLES["default last"]
    bundle = make(tmp_path, networks, measured(make(tmp_path, networks)))
    words = "on onnxruntime at {} (batch {}): the fastest in the bundle's table for this device, {} ms per image"
    for size, expected in (
        (None, "pruned fp32 " + words.format("32x48", "1, 4", "3.00")),
        (SMALL, "pruned int8 " + words.format("16x16", "1", "1.00")),
    ):
        assert native_choice(library, bundle, {}, size) == python_choice(bundle, {}, size) == expected


def measured(bundle: Path) -> LatencyTable:
    """The n-th artifact takes n ms."""

    times = {artifact.id: place + 1.0 for place, artifact in enumerate(Bundle.open(bundle).manifest.artifacts)}

    def timed(row: LatencyRow) -> LatencyRow:
        return row.model_copy(update={"start_p50_ms": (times[row.artifact] * row.batch,)})

    table = bench(bundle, backends=["onnxruntime"], seconds=0.05)
    return table.model_copy(update={"rows": tuple(map(timed, table.rows))})


RULES: list[dict[str, Any]] = [
    {},
    {"layout": "nhwc"},
    {"resize": "letterbox", "layout": "nhwc", "dtype": "uint8"},
    {"resize": "center-crop"},
    {"resize": "center-crop", "shorter_side": 37},
    {"resize": "center-crop", "shorter_side": 50, "layout": "nhwc"},
    {"resize": "letterbox", "shorter_side": 36},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda each: "-".join(map(str, each.values())))
def test_each_size_has_the_preprocessing_of_the_reference(
    library: ctypes.CDLL, make_bundle: MakeBundle, rules: dict[str, Any]
) -> None:
    preprocess = Preprocess(**{"height": 36, "width": 32} | rules)
    sizes = ((36, 32), (9, 13), (18, 16), (40, 71), (5, 4))
    bundle = make_bundle(preprocess, TASK, {"logits": (3,)}, sizes=sizes)
    picture = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    for height, width in sizes:
        expected = preprocess.at_size(height, width).reference(picture)
        actual = NativeEngine(library, bundle, height=height, width=width).preprocess(picture)
        np.testing.assert_array_equal(actual.view(expected.dtype).reshape(expected.shape), expected)


@pytest.mark.parametrize("size", [(32, 0), (0, 32), (-1, -1)])
def test_half_a_size(library: ctypes.CDLL, make_bundle: MakeBundle, size: Size) -> None:
    bundle = make_bundle(USUAL_PREPROCESS, TASK, {"logits": (3,)})
    with pytest.raises(NativeError, match=r"both, or neither|height is -1; allowed: 0 or more") as caught:
        NativeEngine(library, bundle, height=size[0], width=size[1])
    assert caught.value.status == "usage"


def test_a_classifier_as_it_is_exported(library: ctypes.CDLL, tmp_path: Path) -> None:
    """Its sizes share the file of their weights, in a zip."""
    path = export_bundle(seeded(Pooled), tmp_path / "b.eightfold", preprocess=USUAL_PREPROCESS, sizes=[WIDE], task=TASK)
    compare_sizes(library, path, [None, USUAL, WIDE])


@pytest.mark.parametrize("decode", [False, True])
def test_a_detector_as_it_is_exported(library: ctypes.CDLL, tmp_path: Path, decode: bool) -> None:
    rules = Preprocess(height=96, width=160, resize="letterbox", pad_value=0)
    task = Task(kind="detect", decode="yolo-boxes", options={"score_threshold": 0.3})
    path = export_bundle(
        seeded(BrightCells), tmp_path / "b", preprocess=rules, sizes=[128, (64, 96)], task=task, decode=decode
    )
    compare_sizes(library, path, [None, (128, 128), (96, 160), (64, 96)])


def compare_sizes(library: ctypes.CDLL, path: Path, sizes: Sequence[Size | None]) -> None:
    """One answer for each size, and not the same for all."""
    bundle, pictures = Bundle.open(path), [picture(index) for index in range(5)]
    artifacts = {each.image_size(bundle.manifest.preprocess.layout): each for each in bundle.manifest.artifacts[::-1]}
    usual = (bundle.manifest.preprocess.height, bundle.manifest.preprocess.width)
    seen = set()
    for size in sizes:
        height, width = size or (0, 0)
        expected = predictions_of(bundle, artifacts[size or usual], pictures)
        actual = NativeEngine(library, path, threads=1, height=height, width=width).run(pictures)
        for index, answer in enumerate(expected):
            compare(answer, actual, index)
        seen.add(str(expected))
    assert len(seen) == len(sizes) - 1  # the default, asked for or not, is one of them
