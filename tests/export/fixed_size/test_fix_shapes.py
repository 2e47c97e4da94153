from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, UsageError
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.fixed_size.file_inputs import FileInputs
from eightfold.export.fixed_size.fix_shapes import freeze_onnx, frozen
from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph.onnx_files import tensor_specs
from eightfold.runtime.bundle.bundle import Bundle
from tests.export.networks import graph, images, saved, small_net


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As others export: every axis dynamic, names of their own."""
    path = tmp_path_factory.mktemp("foreign") / "theirs.onnx"
    axes = {"pixels": {0: "n", 2: "h", 3: "w"}, "scores": {0: "n"}}
    with pytest.warns(DeprecationWarning, match="TorchScript|feature will be removed"):
        torch.onnx.export(
            small_net().eval(),
            (torch.zeros(1, 3, 16, 16),),
            str(path),
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes=axes,
            dynamo=False,
            opset_version=13,
        )
    return path


def test_dynamic_axes_become_numbers(tmp_path: Path, dynamic: Path) -> None:
    fixed = freeze_onnx(dynamic, tmp_path / "fixed.onnx", batch=2, image_size=16)
    (inputs,), (outputs,) = tensor_specs(onnx.load(fixed))
    assert (inputs.name, inputs.shape) == ("pixels", (2, 3, 16, 16))
    assert (outputs.name, outputs.shape) == ("scores", (2, 5))
    feeds = {"pixels": images(2)}
    np.testing.assert_array_equal(run_onnx(fixed, feeds)["scores"], run_onnx(dynamic, feeds)["scores"])


def test_channels_last_images_are_told_by_their_axis(tmp_path: Path) -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", "h", "w", 3]}, {"y": ["n", "h", "w", 3]})
    fixed = freeze_onnx(saved(model, tmp_path / "x.onnx"), tmp_path / "y.onnx", image_size=(8, 4))
    assert tensor_specs(onnx.load(fixed))[0][0].shape == (1, 8, 4, 3)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ([1, 3, 48, 64], (48, 64)),
        (["n", 48, 64, 3], (48, 64)),
        (["n", 3, "h", "w"], None),
        ([1, 3, 48, "w"], None),
        ([1, 10], None),
    ],
)
def test_the_size_that_a_file_fixes(tmp_path: Path, shape: list[int | str], size: tuple[int, int] | None) -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": shape}, {"y": shape})
    assert FileInputs.of(saved(model, tmp_path / "x.onnx")).image_size == size


def test_an_axis_nothing_tells_is_named(tmp_path: Path, dynamic: Path) -> None:
    with pytest.raises(ModelError, match=r"input 'pixels' has the shape \(1, 3, \?, \?\) and its dynamic axes"):
        freeze_onnx(dynamic, tmp_path / "y.onnx")


def test_an_unknown_input_is_refused(tmp_path: Path, dynamic: Path) -> None:
    with pytest.raises(UsageError, match="no input 'images'; allowed: pixels"):
        freeze_onnx(dynamic, tmp_path / "y.onnx", shapes={"images": (1, 3, 8, 8)})


def test_weights_listed_as_inputs_are_inputs_no_longer(tmp_path: Path) -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    weights = {"w": np.array([2], np.float32)}
    model = graph(nodes, {"x": ["n", 3], "w": [1]}, {"y": ["n", 3]}, weights)
    fixed = freeze_onnx(saved(model, tmp_path / "x.onnx"), tmp_path / "y.onnx")
    assert [value.name for value in onnx.load(fixed).graph.input] == ["x"]


def test_a_foreign_file_becomes_a_bundle(tmp_path: Path, dynamic: Path) -> None:
    where = export_bundle(dynamic, tmp_path / "b", preprocess=Preprocess(height=16, width=16), batches=(1, 2, 3))
    bundle = Bundle.open(where)
    assert [artifact.batch for artifact in bundle.manifest.artifacts] == [1, 2, 3]
    assert bundle.manifest.provenance["source"]["name"] == "theirs"
    assert bundle.verify() == len(bundle.manifest.files)
    rows = images(3)
    for artifact in bundle.manifest.artifacts:
        feeds = {"pixels": rows[: artifact.batch]}
        seen = run_onnx(bundle.artifact_path(artifact), feeds)["scores"]
        np.testing.assert_allclose(seen, run_onnx(dynamic, feeds)["scores"], rtol=1e-4, atol=1e-6)


def test_a_size_that_the_file_fixes_otherwise_is_refused(tmp_path: Path) -> None:
    model = graph([helper.make_node("Relu", ["images"], ["out"])], {"images": [1, 3, 8, "w"]}, {"out": [1, 3, 8, "w"]})
    words = r"input 'images' was to be 2x3x16x16; allowed: 1x3x8x\?, which is fixed in the file but for what is \?"
    with pytest.raises(UsageError, match=words):
        frozen(model, shapes={"images": (2, 3, 16, 16)})
    assert tensor_specs(frozen(model, shapes={"images": (2, 3, 8, 16)}))[0][0].shape == (2, 3, 8, 16)


def test_scalars_have_a_shape(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["images", "gain"], ["scaled"]),
        helper.make_node("ReduceMax", ["scaled"], ["largest"], keepdims=0),
    ]
    shapes: dict[str, Sequence[int | str]] = {"images": ["n", 3, 8, 8], "gain": []}
    fixed = freeze_onnx(saved(graph(nodes, shapes, {"largest": []}), tmp_path / "x.onnx"), tmp_path / "y.onnx")
    onnx.checker.check_model(onnx.load(fixed), full_check=True)
    assert [spec.shape for each in tensor_specs(onnx.load(fixed)) for spec in each] == [(1, 3, 8, 8), (), ()]


def test_a_size_that_only_small_numbers_change_is_refused() -> None:
    """At most four rows: the numbers that inputs are tried with mostly say more."""
    nodes = [
        helper.make_node("Min", ["count", "four"], ["kept"]),
        helper.make_node("Slice", ["images", "start", "kept", "axis"], ["out"]),
    ]
    weights = {"four": np.array([4]), "start": np.array([0]), "axis": np.array([2])}
    model = graph(nodes, {"images": ["n", 3, 8, 8], "count": [1]}, {"out": ["n", 3, "rows", 8]}, weights)
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    words = r"output 'out' has the shape \(1, 3, 4, 8\) for some values and \(1, 3, 0, 8\) for others"
    with pytest.raises(ModelError, match=words):
        frozen(model)


def test_a_size_that_only_larger_scales_change_is_refused() -> None:
    """Less than a pixel is left of each by the scales below 1 that inputs are tried with first."""
    node = helper.make_node("Resize", ["images", "", "scales"], ["out"], mode="nearest")
    model = graph([node], {"images": [1, 1, 1, 1], "scales": [4]}, {"out": [1, 1, "rows", "columns"]})
    with pytest.raises(ModelError, match=r"the shape \(0, 0, 0, 0\) for some values and \(1, 1, 1, 1\)"):
        frozen(model)


def test_a_size_that_follows_from_the_values_is_refused() -> None:
    nodes = [
        helper.make_node("Round", ["images"], ["rounded"]),
        helper.make_node("NonZero", ["rounded"], ["places"]),
        helper.make_node("Cast", ["places"], ["out"], to=onnx.TensorProto.FLOAT),
    ]
    model = graph(nodes, {"images": ["n", 3, 8, 8]}, {"out": [4, "count"]})
    with pytest.raises(ModelError, match=r"output 'out' has the shape \(4, \d+\) for some values and \(4, \d+\)"):
        frozen(model)


def test_an_input_of_any_rank_takes_the_shape_that_is_named() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": [1]}, {"y": [1]})
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.ClearField("shape")
    assert tensor_specs(frozen(model, shapes={"x": [1, 3, 4, 4]}))[1][0].shape == (1, 3, 4, 4)
    with pytest.raises(ModelError, match=r"its dynamic axes have no known length"):
        frozen(model)
