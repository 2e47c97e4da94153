"""The oracle is onnxruntime on the file as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.calib.calibrate import calibrate
from eightfold.errors import ModelError
from eightfold.export.fixed_size.fix_shapes import frozen
from eightfold.export.fp16.fp16 import half_onnx
from eightfold.export.int8.quantize import quantize
from eightfold.export.simplify.simplify import simplify
from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph.canonicalize import canonicalized
from eightfold.onnx_graph.onnx_files import load_onnx
from tests.export.networks import graph, images

FEEDS = {"images": images(1)}


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """As it is: some of these break rules of the standard that onnxruntime passes over."""
    onnx.save(model, path)
    return path


def _conv_twice(weight: str, other: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["images", weight], ["a"], name="one"),
        helper.make_node("Conv", ["images", other], ["b"], name="other"),
        helper.make_node("Mul", ["a", "b"], ["out"]),
    ]
    return graph(nodes, {"images": [1, 3, 16, 16]}, {"out": [1, 4, 14, 14]})


def _weight(name: str) -> onnx.TensorProto:
    array = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    array[:, 1:] = 0
    return numpy_helper.from_array(array, name)


def _with_listed_weights() -> onnx.ModelProto:
    """Before IR version 4 weights had to be inputs as well; two of them are equal."""
    model = _conv_twice("w", "v")
    for name in ("w", "v"):
        model.graph.initializer.append(_weight(name))
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (4, 3, 3, 3)))
    model.ir_version = 3
    return model


def _with_sparse_weights(coordinates: bool) -> onnx.ModelProto:
    model = _conv_twice("w", "w")
    dense = numpy_helper.to_array(_weight("w"))
    places = np.argwhere(dense) if coordinates else np.flatnonzero(dense)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense != 0], "w"), numpy_helper.from_array(places.astype(np.int64)), dense.shape
    )
    model.graph.sparse_initializer.append(sparse)
    return model


def _with_function() -> onnx.ModelProto:
    """A function under the name of an operator that does something else."""
    body = [helper.make_node("Conv", ["x", "k"], ["c"]), helper.make_node("Neg", ["c"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    model = _conv_twice("w", "w")
    model.functions.append(helper.make_function("local", "Identity", ["x", "k"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Identity", "local"
    model.graph.initializer.append(_weight("w"))
    return model


def _out_of_order() -> onnx.ModelProto:
    """onnxruntime takes nodes in any order."""
    model = _conv_twice("w", "w")
    model.graph.initializer.append(_weight("w"))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _without_output_shape(*, typed: bool) -> onnx.ModelProto:
    model = _conv_twice("w", "w")
    model.graph.initializer.append(_weight("w"))
    model.graph.output[0].ClearField("type")
    if typed:
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


MAKERS = pytest.mark.parametrize(
    "make",
    [
        _with_listed_weights,
        lambda: _with_sparse_weights(coordinates=False),
        lambda: _with_sparse_weights(coordinates=True),
        _with_function,
        _out_of_order,
        lambda: _without_output_shape(typed=True),
        lambda: _without_output_shape(typed=False),
    ],
    ids=["listed", "sparse", "sparse by coordinates", "function", "order", "no shape", "no type"],
)


@MAKERS
def test_what_is_read_is_the_same_network(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    file = saved(make(), tmp_path / "net.onnx")
    model = load_onnx(file)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["images"]
    assert not model.functions
    assert [tensor.name for tensor in model.graph.initializer][:1] == ["w"]
    np.testing.assert_array_equal(run_onnx(model, FEEDS)["out"], run_onnx(file, FEEDS)["out"])


@MAKERS
def test_every_step_takes_it(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    file = saved(make(), tmp_path / "net.onnx")
    known = run_onnx(file, FEEDS)["out"]
    for step, tolerance in ((simplify, 1e-5), (half_onnx, 1e-2)):
        made = step(file, tmp_path / "made.onnx")
        onnx.checker.check_model(onnx.load(made), full_check=True)
        np.testing.assert_allclose(run_onnx(made, FEEDS)["out"], known, atol=tolerance * np.abs(known).max())


@MAKERS
def test_it_is_quantized(tmp_path: Path, make: Callable[[], onnx.ModelProto]) -> None:
    file = saved(make(), tmp_path / "net.onnx")
    ranges = calibrate(file, images(40), None, method="minmax")
    quantize(file, ranges, tmp_path / "int8.onnx", weight_bits=8, form="qdq")
    known, found = (run_onnx(path, FEEDS)["out"] for path in (file, tmp_path / "int8.onnx"))
    assert np.abs(known - found).max() < 0.1 * np.abs(known).max()


def test_nodes_in_a_circle_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    file = saved(graph(nodes, {"x": [1, 3, 8, 8]}, {"b": [1, 3, 8, 8]}), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="onnxruntime refuses"):
        simplify(file)


def test_an_axis_of_length_minus_one_has_any_length() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {"x": [-1, 3, 8, 8]}, {"y": [-1, 3, 8, 8]})
    (value,) = canonicalized(model).graph.input
    assert not value.type.tensor_type.shape.dim[0].HasField("dim_value")
    fixed = frozen(model, batch=2).graph.output[0].type.tensor_type.shape
    assert [dim.dim_value for dim in fixed.dim] == [2, 3, 8, 8]
