"""Shapes inside of a graph that hold a batch, as a number or put together node by node: each image keeps its answer, or
one line says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from eightfold.arrays import Array
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import ModelError, first_line
from eightfold.export.bundle.export_bundle import export_bundle
from eightfold.export.fixed_size.fix_shapes import freeze_onnx
from eightfold.onnx_graph.constant_values import constant_value
from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.runtime.bundle.bundle import Bundle

Nodes = list[onnx.NodeProto]
WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def numbers(**values: list[int]) -> dict[str, Array]:
    return {name: np.array(value, np.int64) for name, value in values.items()}


# Each reshapes the convolution's output `c` to (batch, 4, 64); {} stands for the batch of the exporter's example.
def joined(batch: int) -> tuple[Nodes, dict[str, Array]]:
    made = [node("Concat", "b rest", "shape", axis=0), node("Reshape", "c shape", "out")]
    return made, numbers(b=[batch], rest=[4, 64])


def multiplied(batch: int) -> tuple[Nodes, dict[str, Array]]:
    made = [
        node("Mul", "b four", "rows"),
        node("Concat", "rows cells", "flat", axis=0),
        node("Reshape", "c flat", "x"),
        node("Relu", "x", "y"),
        node("Concat", "b rest", "shape", axis=0),
        node("Reshape", "y shape", "out"),
    ]
    return made, numbers(b=[batch], four=[4], cells=[64], rest=[4, 64])


def cast(batch: int) -> tuple[Nodes, dict[str, Array]]:
    value = numpy_helper.from_array(np.array([batch, 4, 64], np.float32))
    made = [node("Constant", "", "k", value=value), node("Cast", "k", "shape", to=7), node("Reshape", "c shape", "out")]
    del made[0].input[:]
    return made, {}


def followed(batch: int) -> tuple[Nodes, dict[str, Array]]:
    """From the input, so that nothing is fixed."""
    made = [
        node("Shape", "c", "s"),
        node("Gather", "s zero", "b", axis=0),
        node("Concat", "b rest", "shape", axis=0),
        node("Reshape", "c shape", "out"),
    ]
    return made, numbers(zero=[0], rest=[4, 64])


KINDS = (joined, multiplied, cast, followed)


def written(tmp_path: Path, parts: tuple[Nodes, dict[str, Array]], batch: int | str) -> Path:
    made, constants = parts
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node("Conv", "images w", "c", pads=[1, 1, 1, 1]), *made],
        "g",
        [value("images", 1, [batch, 3, 8, 8])],
        [value("out", 1, None)],
        [numpy_helper.from_array(array, name) for name, array in {"w": WEIGHT, **constants}.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def answers(path: Path, images: Array, batch: int) -> Array:
    """By onnxruntime, in runs of `batch` images."""
    ort = pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options)
    runs = [session.run(None, {"images": images[at : at + batch]})[0] for at in range(0, len(images), batch)]
    return np.concatenate(runs)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("inner", "declared"), [(1, 1), (1, "N"), (2, 2)])
@pytest.mark.parametrize("wanted", [1, 3])
def test_every_image_keeps_its_answer(
    tmp_path: Path, kind: object, inner: int, declared: int | str, wanted: int
) -> None:
    path = written(tmp_path, kind(inner), declared)  # type: ignore[operator]  # one of KINDS
    made = freeze_onnx(path, tmp_path / "b.onnx", batch=wanted)
    images = np.random.default_rng(1).random((6, 3, 8, 8), dtype=np.float32)
    np.testing.assert_allclose(answers(made, images, wanted), answers(path, images, inner), rtol=1e-4, atol=1e-5)


def test_a_bundle_takes_a_dynamic_file_that_holds_the_batch_of_its_example(tmp_path: Path) -> None:
    path = written(tmp_path, multiplied(1), "N")
    bundle = export_bundle(path, tmp_path / "bundle", preprocess=Preprocess(height=8, width=8), batches=(1, 2))
    images = np.random.default_rng(1).random((2, 3, 8, 8), dtype=np.float32)
    for artifact in Bundle.open(bundle).manifest.artifacts:
        found = answers(bundle / artifact.path, images, artifact.batch)
        np.testing.assert_allclose(found, answers(path, images, 1), rtol=1e-4, atol=1e-5)


def test_what_mixes_images_is_refused_in_a_line_without_code(tmp_path: Path) -> None:
    squeezed = [node("Squeeze", "c first", "x"), node("Unsqueeze", "x first", "out")]
    path = written(tmp_path, (squeezed, numbers(first=[0])), "N")
    with pytest.raises(ModelError, match=r"^the batch is fixed at 1 inside of the graph: at 2, .*; allowed: batch 1"):
        freeze_onnx(path, tmp_path / "b.onnx", batch=2)
    assert not (tmp_path / "b.onnx").exists()


def test_the_place_in_a_librarys_code_is_left_out() -> None:
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. Status Message: "
        "/onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape_helper.h:91 "
        "onnxruntime::ReshapeHelper::ReshapeHelper(const onnxruntime::TensorShape&, bool) The input tensor cannot be "
        "reshaped. Input shape:{2,4}, requested shape:{1,4}"
    )
    assert first_line(RuntimeError(said)) == (
        "Non-zero status code returned while running Reshape node. Status Message: The input tensor cannot be "
        "reshaped. Input shape:{2,4}, requested shape:{1,4}"
    )


def test_a_value_is_known_where_constants_alone_decide(tmp_path: Path) -> None:
    model = onnx.load(written(tmp_path, multiplied(2), 2))
    index = GraphIndex(model.graph)
    known = {name: constant_value(model, index, name) for name in ("flat", "shape", "w", "c", "x")}
    assert {name: None if array is None else array.shape for name, array in known.items()} == {
        "flat": (2,),
        "shape": (3,),
        "w": WEIGHT.shape,
        "c": None,
        "x": None,
    }
    np.testing.assert_array_equal(known["flat"], [8, 64])
