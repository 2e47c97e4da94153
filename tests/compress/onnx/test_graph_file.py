"""Reading a graph as a module, and writing it back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from eightfold.compress.onnx.graph_file import onnx_module, open_onnx, write_weights
from eightfold.errors import ModelError, TraceError
from tests.compress.onnx.graphs import random, run, save_graph, two_convolutions


def test_a_module_answers_as_onnxruntime_does_under_the_names_of_the_graph(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    module, x = onnx_module(path), random(1, 3, 16, 16)
    assert [name for name, _ in module.named_parameters()] == ["w1", "b1", "w2", "b2", "w3", "b3"]
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), run(path, x)[0], atol=1e-6)


def test_names_with_dots_and_slashes_are_kept(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "body.0/conv.weight"], ["y"], "/body.0/conv")]
    module = onnx_module(save_graph(tmp_path / "net.onnx", nodes, {"body.0/conv.weight": random(8, 3, 1, 1)}))
    assert list(module.state_dict()) == ["body.0/conv.weight"]


def test_an_unchanged_module_gives_the_same_graph(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    graph = open_onnx(path)
    graph.save(tmp_path / "again.onnx")
    assert onnx.load(str(tmp_path / "again.onnx")) == onnx.load(str(path))


def test_trained_weights_go_back_into_the_file(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    module, x = onnx_module(path), torch.from_numpy(random(2, 3, 16, 16))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(x).square().sum().backward()
    optimizer.step()
    write_weights(path, module, tmp_path / "trained.onnx")
    with torch.no_grad():
        expected = module(x[:1]).numpy()
    np.testing.assert_allclose(run(tmp_path / "trained.onnx", x[:1].numpy())[0], expected, rtol=1e-5)
    assert np.abs(expected - run(path, x[:1].numpy())[0]).max() > 1e-4


def test_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    nodes = [helper.make_node("Conv", ["x", "other"], ["y"])]
    other = onnx_module(save_graph(tmp_path / "other.onnx", nodes, {"other": random(8, 3, 1, 1)}))
    with pytest.raises(ModelError, match=r"the weight 'w1' of .* is not in the module"):
        write_weights(path, other, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_shape_arithmetic_stays_on_the_host(tmp_path: Path) -> None:
    """Flatten as exporters for dynamic batches write it: the batch from Shape, the rest from constants."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["x", "sizes"], ["y"], "flatten"),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([3, 256])}
    path = save_graph(tmp_path / "net.onnx", nodes, weights, inputs={"x": ("batch", 3, 16, 16)})
    module = onnx_module(path)
    assert module.get_submodule("flatten").shape == [-2, 3, 256]
    assert module(torch.zeros(5, 3, 16, 16)).shape == (5, 3, 256)


@pytest.mark.parametrize("taken", [True, False])
def test_a_condition_that_follows_from_shapes_chooses_the_branch(tmp_path: Path, taken: bool) -> None:
    def branch(op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"{op}_out"])], op, [], [value])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "place"], ["channels"], axis=0),
        helper.make_node("Equal", ["channels", "three"], ["same"]),
        helper.make_node("If", ["same"], ["y"], then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    weights = {"place": np.array(1), "three": np.array(3 if taken else 4)}
    module = onnx_module(save_graph(tmp_path / "net.onnx", nodes, weights))
    assert float(module(torch.full((1, 3, 16, 16), -1.0)).max()) == (0.0 if taken else 1.0)


def test_weights_in_a_file_beside_the_graph_are_read(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    expected = run(path, random(1, 3, 16, 16))[0]
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    graph = open_onnx(path)
    graph.save(tmp_path / "whole.onnx")
    (tmp_path / "net.data").unlink()
    np.testing.assert_array_equal(run(tmp_path / "whole.onnx", random(1, 3, 16, 16))[0], expected)
    with pytest.raises(ModelError, match=r"net\.data"):
        open_onnx(path)


def test_a_quantized_graph_is_refused_with_the_way_round(tmp_path: Path) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], "quantize")]
    path = save_graph(tmp_path / "net.onnx", nodes, {"scale": np.array(0.1, np.float32), "zero": np.array(0, np.uint8)})
    with pytest.raises(ModelError, match=r"already quantized \(1 nodes.*'quantize'.*prune the float graph"):
        open_onnx(path)


def test_an_operator_that_torch_cannot_run_is_named_with_its_node(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "net.onnx", [helper.make_node("Custom", ["x"], ["y"], "strange", domain="mine")], {})
    with pytest.raises(TraceError, match=r"mine\.Custom of node 'strange' cannot run in torch.*cut the graph"):
        open_onnx(path)


def test_a_condition_that_depends_on_the_input_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["inner"])], "g", [], [value])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "half"], ["bright"]),
        helper.make_node("If", ["bright"], ["y"], "choose", then_branch=branch, else_branch=branch),
    ]
    path = save_graph(tmp_path / "net.onnx", nodes, {"half": np.array(0.5, np.float32)})
    with pytest.raises(TraceError, match=r"'choose' depends on the input"):
        open_onnx(path)


def test_half_precision_stays_half(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(path))
    module = onnx_module(path)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float16}
