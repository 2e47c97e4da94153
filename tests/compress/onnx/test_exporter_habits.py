"""Forms that exporters give to the same network: each prunes as the usual form, by the correctness rule."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

import eightfold as ef
from eightfold.cli.compress.plan import Action
from eightfold.cli.compress.plan import plan as plan_command
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.plan.plan import PrunePlan
from eightfold.errors import ModelError, TraceError
from eightfold.onnx_graph import onnx_files
from tests.compress.onnx.graphs import Array, random, run, save_graph, two_convolutions, zeroed

make = helper.make_node
IMAGE = np.random.default_rng(5).random((1, 3, 16, 16), dtype=np.float32)


def obeys_the_rule(path: Path, folder: Path, x: Array) -> PrunePlan:
    """Prune, and compare with the original whose removed channels are zero, both run by onnxruntime."""
    done = ef.prune(path, output=folder / "pruned.onnx")
    (expected,) = run(zeroed(path, done.plan.removed_indices(), folder / "zeroed.onnx"), x)
    np.testing.assert_allclose(run(folder / "pruned.onnx", x)[0], expected, rtol=1e-4, atol=1e-6)
    onnx.checker.check_model(str(folder / "pruned.onnx"), full_check=True)
    plan: PrunePlan = done.plan
    return plan


def constant(path: Path, name: str) -> Array:
    [found] = [each for each in onnx.load(str(path)).graph.initializer if each.name == name]
    array: Array = numpy_helper.to_array(found)
    return array


def test_the_shape_of_an_expand_follows_a_width(tmp_path: Path) -> None:
    """A map of one channel, widened to those of another convolution."""
    nodes = [
        make("Conv", ["x", "w1"], ["c"], "wide"),
        make("Conv", ["x", "wm"], ["m"], "narrow"),
        make("Expand", ["m", "shape"], ["e"], "expand"),
        make("Mul", ["c", "e"], ["z"], "scale"),
        make("Conv", ["z", "w2"], ["y"], "last"),
    ]
    weights = {
        "w1": random(32, 3, 1, 1), "wm": random(1, 3, 1, 1), "shape": np.array([1, 32, 16, 16]),
        "w2": random(8, 32, 1, 1),
    }  # fmt: skip
    plan = obeys_the_rule(save_graph(tmp_path / "net.onnx", nodes, weights), tmp_path, IMAGE)
    assert [(group.id, len(group.kept)) for group in plan.groups] == [("w1", 16)]
    assert constant(tmp_path / "pruned.onnx", "shape").tolist() == [1, 16, 16, 16]


def group_norms(path: Path, scales: tuple[str, str], shifts: tuple[str, str], shift: Array) -> Path:
    """Two group norms of 16 groups as exporters write them, whose scales and shifts have these names."""
    nodes = []
    weights = {"split": np.array([0, 16, -1]), "back": np.array([1, 32, 16, 16]), "last": random(8, 32, 1, 1, seed=2)}
    x = "x"
    for number, channels in enumerate((3, 32)):
        weights |= {scales[number]: np.ones(16, np.float32), shifts[number]: shift}
        weights |= {
            f"w{number}": random(32, channels, 1, 1, seed=number),
            f"gain{number}": random(32, 1, 1, seed=number),
        }
        nodes += [
            make("Conv", [x, f"w{number}"], [f"c{number}"]),
            make("Reshape", [f"c{number}", "split"], [f"s{number}"]),
            make("InstanceNormalization", [f"s{number}", scales[number], shifts[number]], [f"n{number}"]),
            make("Reshape", [f"n{number}", "back"], [f"b{number}"]),
            make("Mul", [f"b{number}", f"gain{number}"], [x := f"g{number}"]),
        ]
    return save_graph(path, [*nodes, make("Conv", [x, "last"], ["y"])], weights)


def test_norms_share_no_channels_through_vectors_of_one_value(tmp_path: Path) -> None:
    """Simplifiers merge scales of one and shifts of zero; the plan is that of the file as it was before."""
    zero = np.zeros(16, np.float32)
    apart = group_norms(tmp_path / "apart.onnx", ("scale", "scale2"), ("shift", "shift2"), zero)
    merged = group_norms(tmp_path / "merged.onnx", ("scale", "scale"), ("shift", "shift"), zero)
    plan = obeys_the_rule(apart, tmp_path, IMAGE)
    expected = run(tmp_path / "pruned.onnx", IMAGE)[0]
    again = ef.prune(merged, output=tmp_path / "again.onnx").plan
    kept = [group.kept for group in plan.groups]
    assert len(kept) == 2
    assert [group.kept for group in again.groups] == kept
    np.testing.assert_array_equal(run(tmp_path / "again.onnx", IMAGE)[0], expected)


def test_norms_share_channels_through_trained_vectors(tmp_path: Path) -> None:
    shared = group_norms(tmp_path / "net.onnx", ("scale", "scale"), ("shift", "shift"), random(16))
    assert len(ef.plan_pruning(shared).groups) == 1


def keras_network(path: Path, *, batch: int | str = "n", size: int = 16) -> Path:
    """Images with channels last, kernels [height, width, inputs, outputs] behind Transpose nodes, a batch norm as
    product and sum, ReLU6 as Clip, and a classifier of MatMul and Add, as converters write networks of Keras."""
    nodes = [
        make("Transpose", ["x"], ["t"], "to channels first", perm=[0, 3, 1, 2]),
        make("Transpose", ["k1"], ["k1t"], "kernel 1", perm=[3, 2, 0, 1]),
        make("Conv", ["t", "k1t"], ["c1"], "first", auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        make("Mul", ["c1", "gamma"], ["g1"], "norm scale"),
        make("Add", ["g1", "beta"], ["n1"], "norm shift"),
        make("Clip", ["n1", "zero", "six"], ["r1"], "relu6"),
        make("Transpose", ["k2"], ["k2t"], "kernel 2", perm=[3, 2, 0, 1]),
        make("Conv", ["r1", "k2t", "b2"], ["c2"], "second", auto_pad="SAME_UPPER", kernel_shape=[3, 3]),
        make("Relu", ["c2"], ["r2"], "relu"),
        make("Transpose", ["r2"], ["l"], "to channels last", perm=[0, 2, 3, 1]),
        make("ReduceMean", ["l"], ["m"], "pool", axes=[1, 2], keepdims=0),
        make("MatMul", ["m", "k3"], ["p"], "dense"),
        make("Add", ["p", "b3"], ["y"], "dense bias"),
    ]
    weights = {
        "k1": random(3, 3, 3, 32), "gamma": random(1, 32, 1, 1), "beta": random(1, 32, 1, 1, seed=1),
        "zero": np.array(0, np.float32), "six": np.array(6, np.float32),
        "k2": random(3, 3, 32, 64, seed=2), "b2": random(64), "k3": random(64, 10), "b3": random(10),
    }  # fmt: skip
    return save_graph(path, nodes, weights, inputs={"x": (batch, size, size, 3)})


def test_kernels_behind_transpose_nodes(tmp_path: Path) -> None:
    path = keras_network(tmp_path / "net.onnx")
    plan = obeys_the_rule(path, tmp_path, np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1)))
    assert sorted((group.width, len(group.kept)) for group in plan.groups) == [(32, 16), (64, 32)]
    assert constant(tmp_path / "pruned.onnx", "k2").shape == (3, 3, 16, 32)


def test_kernels_behind_transpose_nodes_are_compensated(tmp_path: Path) -> None:
    path, images = keras_network(tmp_path / "net.onnx"), torch.rand(32, 16, 16, 3)
    x = images[:4].numpy()
    expected = run(path, x)[0]
    apart = {}
    for method in ("none", "lsq"):
        given = images if method == "lsq" else ()
        ef.prune(path, output=tmp_path / f"{method}.onnx", compensation=method, images=given)
        apart[method] = np.abs(run(tmp_path / f"{method}.onnx", x)[0] - expected).max()
    assert apart["lsq"] < apart["none"] / 4


def test_a_plan_fits_another_batch_and_size(tmp_path: Path) -> None:
    plan = ef.plan_pruning(keras_network(tmp_path / "net.onnx"))
    ef.apply_plan(keras_network(tmp_path / "other.onnx", batch=2, size=24), plan, output=tmp_path / "out.onnx")
    assert run(tmp_path / "out.onnx", np.zeros((2, 24, 24, 3), np.float32))[0].shape == (2, 10)


def _loop() -> list[NodeProto]:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [make("Identity", ["go"], ["on"]), make("Relu", ["state"], ["next"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state", TensorProto.FLOAT, None)],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    return [make("Loop", ["times", "", "x"], ["y"], "repeat", body=body)]


def _scan() -> list[NodeProto]:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [make("Relu", ["row"], ["made"])],
        "body",
        [value("row", TensorProto.FLOAT, None)],
        [value("made", TensorProto.FLOAT, None)],
    )
    return [make("Scan", ["x"], ["y"], "rows", body=body, num_scan_inputs=1)]


@pytest.mark.parametrize(("nodes", "words"), [(_loop, "Loop of node 'repeat'"), (_scan, "Scan of node 'rows'")])
def test_loops_are_refused_in_one_line(tmp_path: Path, nodes: object, words: str) -> None:
    assert callable(nodes)
    path = save_graph(tmp_path / "net.onnx", nodes(), {"times": np.array(3)})
    with pytest.raises(TraceError, match=re.escape(words) + " cannot run in torch.*cut the graph") as caught:
        ef.prune(path, output=tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("op", ["QLinearConv", "DequantizeLinear", "ConvInteger"])
def test_quantized_graphs_of_every_form_are_refused(tmp_path: Path, op: str) -> None:
    path = save_graph(tmp_path / "net.onnx", [make(op, ["x", "w"], ["y"], "node")], {"w": random(8, 3, 1, 1)})
    with pytest.raises(ModelError, match=rf"already quantized \(1 nodes, the first: {op} 'node'\).*prune the float"):
        ef.prune(path, output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_weights_beyond_protobufs_limit_stay_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is 2 GiB; here it is less than this network has."""
    path = two_convolutions(tmp_path / "net.onnx")
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="net.data", size_threshold=0)
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT_BYTES", 1000)
    (tmp_path / "out").mkdir()
    done = ef.prune(path, output=tmp_path / "out" / "pruned.onnx")
    assert len(list((tmp_path / "out").iterdir())) == 2
    graph = onnx.load(str(tmp_path / "out" / "pruned.onnx"), load_external_data=False).graph
    assert {each.data_location for each in graph.initializer if each.name == "w2"} == {TensorProto.EXTERNAL}
    onnx.save(onnx.load(str(path)), str(tmp_path / "whole.onnx"))
    expected = run(zeroed(tmp_path / "whole.onnx", done.plan.removed_indices(), tmp_path / "zeroed.onnx"), IMAGE)[0]
    np.testing.assert_allclose(run(tmp_path / "out" / "pruned.onnx", IMAGE)[0], expected, rtol=1e-4, atol=1e-6)


def test_the_graph_is_held_without_its_weights(tmp_path: Path) -> None:
    """So that a large file takes its size once: the module has them, the graph their names and shapes."""
    graph = open_onnx(two_convolutions(tmp_path / "net.onnx"))
    assert {each.name for each in graph.model.graph.initializer if not each.raw_data} == {
        name for name, _ in graph.module.named_parameters()
    }


def test_plans_of_files_are_shown_compared_and_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps of pruning, one after the other, are one plan for the file that both began with."""
    path = two_convolutions(tmp_path / "net.onnx")
    ef.prune(path, output=tmp_path / "a", ignore=("w2",))
    ef.prune(tmp_path / "a" / "model.onnx", output=tmp_path / "b", ignore=("w1",))
    plan_command(Action.show, [tmp_path / "a"])
    assert "w1" in capsys.readouterr().out
    plan_command(Action.diff, [tmp_path / "a", tmp_path / "a"])
    assert "w1" not in capsys.readouterr().out
    other = ef.prune(path, output=tmp_path / "c", ignore=("w1",)).plan
    plan_command(Action.diff, [tmp_path / "a", tmp_path / "c"])
    told = capsys.readouterr().out
    assert "w1" in told
    assert "w2" in told
    plan_command(Action.merge, [tmp_path / "a", tmp_path / "b"], output=tmp_path / "both.json")
    both = PrunePlan.load(tmp_path / "both.json")
    assert {group.id for group in both.groups} == {"w1", *(group.id for group in other.groups)}
    ef.apply_plan(path, both, output=tmp_path / "both.onnx")
    assert onnx.load(str(tmp_path / "both.onnx")) == onnx.load(str(tmp_path / "b" / "model.onnx"))
