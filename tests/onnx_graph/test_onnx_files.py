from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.fixed_size.fix_shapes import freeze_onnx
from eightfold.export.fp16.fp16 import half_onnx
from eightfold.export.simplify.simplify import simplify
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph import onnx_files
from eightfold.onnx_graph.onnx_files import external_files, load_onnx, save_onnx, tensor_specs
from eightfold.onnx_graph.shape_inference import weight_bytes
from eightfold.runtime.bundle.bundle import Bundle
from tests.export.networks import graph, saved

FEEDS = {"images": np.random.default_rng(0).random((2, 64), dtype=np.float32)}


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    weight = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["images", "w"], ["out"])]
    return saved(graph(nodes, {"images": [2, 64]}, {"out": [2, 64]}, {"w": weight}), tmp_path / "x.onnx")


@pytest.fixture
def over_the_limit(linear: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file treated as one of over 2 GiB, in a folder of its own."""
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT_BYTES", 1000)
    (linear.parent / "large").mkdir()
    return save_onnx(load_onnx(linear), linear.parent / "large" / "y.onnx")


def test_weights_beyond_protobufs_limit_go_beside_the_graph(linear: Path, over_the_limit: Path) -> None:
    (name,) = external_files(over_the_limit)
    assert sorted(file.name for file in over_the_limit.parent.iterdir()) == sorted(["y.onnx", name])
    assert over_the_limit.stat().st_size < 1000
    np.testing.assert_array_equal(run_onnx(over_the_limit, FEEDS)["out"], run_onnx(linear, FEEDS)["out"])


def test_the_same_weights_give_the_same_name(over_the_limit: Path) -> None:
    before = sorted((file.name, file.read_bytes()) for file in over_the_limit.parent.iterdir())
    save_onnx(load_onnx(over_the_limit), over_the_limit)
    assert sorted((file.name, file.read_bytes()) for file in over_the_limit.parent.iterdir()) == before


def test_every_step_takes_weights_beside_the_graph(over_the_limit: Path, tmp_path: Path) -> None:
    small = simplify(over_the_limit, tmp_path / "small.onnx")
    half = half_onnx(over_the_limit, tmp_path / "half.onnx", inputs=FEEDS)
    frozen = freeze_onnx(over_the_limit, tmp_path / "frozen.onnx")
    assert run_onnx(frozen, FEEDS)["out"].shape == (2, 64)
    assert run_onnx(small, FEEDS)["out"].shape == run_onnx(half, FEEDS)["out"].shape == (2, 64)
    assert build_engine(over_the_limit, tmp_path / "x.engine", precision="fp32").stat().st_size


def test_a_bundle_holds_weights_beside_the_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT_BYTES", 1000)
    weight = np.random.default_rng(1).random((48, 64), dtype=np.float32)
    nodes = [helper.make_node("Flatten", ["images"], ["row"]), helper.make_node("MatMul", ["row", "w"], ["out"])]
    network = graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 64]}, {"w": weight})
    source = save_onnx(network, tmp_path / "x.onnx")
    path = export_bundle(source, tmp_path / "bundle", preprocess=Preprocess(height=4, width=4))
    bundle = Bundle.open(path)
    assert bundle.verify() == 2
    (artifact,) = bundle.manifest.artifacts
    assert len(artifact.files) == 1
    images = np.random.default_rng(0).random((1, 3, 4, 4), dtype=np.float32)
    seen = run_onnx(bundle.artifact_path(artifact), {"images": images})["out"]
    np.testing.assert_allclose(seen, images.reshape(1, -1) @ weight, rtol=1e-5)


def test_weights_beside_the_graphs_of_several_batches_are_stored_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT_BYTES", 1000)
    weight = np.random.default_rng(1).random((48, 64), dtype=np.float32)
    nodes = [helper.make_node("Flatten", ["images"], ["row"]), helper.make_node("MatMul", ["row", "w"], ["out"])]
    source = save_onnx(graph(nodes, {"images": ["n", 3, 4, 4]}, {"out": ["n", 64]}, {"w": weight}), tmp_path / "x.onnx")
    bundle = Bundle.open(
        export_bundle(source, tmp_path / "bundle", preprocess=Preprocess(height=4, width=4), batches=(1, 2, 4))
    )
    assert bundle.verify() == 4
    assert sum(entry.bytes for entry in bundle.manifest.files.values()) < 1.5 * weight.nbytes
    for artifact in bundle.manifest.artifacts:
        images = np.random.default_rng(0).random((artifact.batch, 3, 4, 4), dtype=np.float32)
        seen = run_onnx(bundle.artifact_path(artifact), {"images": images})["out"]
        np.testing.assert_allclose(seen, images.reshape(len(images), -1) @ weight, rtol=1e-5)


def test_only_the_weights_in_use_stay_beside_an_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing reads the second weight: what was written before that was found out is of no use."""
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT_BYTES", 1000)
    weights = {name: np.random.default_rng(place).random((48, 64), dtype=np.float32) for place, name in enumerate("ab")}
    nodes = [
        helper.make_node("Flatten", ["images"], ["row"]),
        helper.make_node("MatMul", ["row", "a"], ["one"]),
        helper.make_node("MatMul", ["row", "b"], ["unread"]),
        helper.make_node("Relu", ["one"], ["out"]),
    ]
    source = save_onnx(graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 64]}, weights), tmp_path / "x.onnx")
    (tmp_path / "made").mkdir()
    images = np.random.default_rng(0).random((1, 3, 4, 4), dtype=np.float32)
    export_batches(source, {1: tmp_path / "made" / "y.onnx"}, images=images)
    names = {file.name for file in (tmp_path / "made").iterdir()}
    assert names == {"y.onnx", *external_files(tmp_path / "made" / "y.onnx")}


def test_a_missing_weights_file_is_named(over_the_limit: Path) -> None:
    (name,) = external_files(over_the_limit)
    (over_the_limit.parent / name).unlink()
    with pytest.raises(ModelError, match=f"has its weights in {name}, which is missing; .* copy {name} into"):
        load_onnx(over_the_limit)


def test_types_no_runtime_here_has_are_refused() -> None:
    model = graph([helper.make_node("Relu", ["images"], ["out"])], {"images": [1]}, {"out": [1]})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.COMPLEX64
    with pytest.raises(ModelError, match="tensor 'images' is complex64; allowed: float32"):
        tensor_specs(model)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_how_much_a_weight_takes(dtype: type[np.generic]) -> None:
    tensor = onnx.numpy_helper.from_array(np.ones((3, 5), dtype))
    assert weight_bytes(tensor) == len(tensor.raw_data)
    assert weight_bytes(onnx.TensorProto(data_type=99, dims=[7], raw_data=b"1234")) == 4
