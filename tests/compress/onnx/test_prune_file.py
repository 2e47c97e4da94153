"""Pruning of ONNX files, against the original graph with the removed channels zeroed, run by onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper

import eightfold as ef
from eightfold.compress.onnx.graph_file import open_onnx
from eightfold.compress.plan.plan import PrunePlan
from eightfold.errors import EightfoldError, ModelError, PlanMismatchError, UnknownNameError, UsageError
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source
from tests.compress.onnx.graphs import (
    Array,
    random,
    residual_network,
    run,
    save_graph,
    two_convolutions,
    zeroed,
)

make = helper.make_node


def pruned(path: Path, folder: Path, **options: Any) -> tuple[Path, PrunePlan]:
    """Prune without any group left whole by the check."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = ef.prune(path, output=folder / "pruned.onnx", **options)
    return folder / "pruned.onnx", done.plan


def obeys_the_rule(path: Path, folder: Path, x: Array, **options: Any) -> PrunePlan:
    """Prune, and compare with the original whose removed channels are zero."""
    output, plan = pruned(path, folder, **options)
    expected = run(zeroed(path, plan.removed_indices(), folder / "zeroed.onnx"), x)
    for seen, known in zip(run(output, x), expected, strict=True):
        np.testing.assert_allclose(seen, known, rtol=1e-4, atol=1e-6)
    onnx.checker.check_model(str(output), full_check=True)
    return plan


def shapes(path: Path) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in onnx.load(str(path)).graph.initializer}


IMAGE = np.random.default_rng(5).random((1, 3, 16, 16), dtype=np.float32)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 22])
def test_half_of_the_channels_go(tmp_path: Path, opset: int) -> None:
    path = two_convolutions(tmp_path / "net.onnx", opset=opset)
    plan = obeys_the_rule(path, tmp_path, IMAGE)
    assert {group.id: len(group.kept) for group in plan.groups} == {"w1": 16, "w2": 16}
    assert shapes(tmp_path / "pruned.onnx")["w2"] == [16, 16, 3, 3]


def test_the_graph_stays_the_users_own(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    output, _ = pruned(path, tmp_path)
    before, after = onnx.load(str(path)), onnx.load(str(output))
    assert [t.name for t in after.graph.initializer] == [t.name for t in before.graph.initializer]
    for model in (before, after):
        del model.graph.initializer[:]
    assert after == before


def test_scores_are_those_of_the_weights(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    weight = numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0])
    strongest = np.sort(np.argsort(np.square(weight).sum((1, 2, 3)))[-16:])
    plan = ef.plan_pruning(path)
    assert next(group.kept for group in plan.groups if group.id == "w1") == tuple(strongest)


def with_tail(path: Path, nodes: Sequence[NodeProto], weights: dict[str, Array], *, opset: int = 17) -> Path:
    """A convolution x -> c, these nodes from c to z, and a 1x1 convolution of as many channels."""
    first = make("Conv", ["x", "w1", "b1"], ["c"], "first", pads=[1] * 4)
    last = make("Conv", ["z", "w2"], ["y"], "last")
    held = {"w1": random(32, 3, 3, 3), "b1": random(32), **weights}
    return save_graph(path, [first, *nodes, last], held, opset=opset)


TAILS: dict[str, tuple[list[NodeProto], dict[str, Array]]] = {
    "channel shuffle": (
        [
            make("Reshape", ["c", "in"], ["r"], "fold"),
            make("Transpose", ["r"], ["t"], "turn", perm=[0, 2, 1, 3, 4]),
            make("Reshape", ["t", "out"], ["z"], "unfold"),
        ],
        {"in": np.array([1, 2, 16, 16, 16]), "out": np.array([1, 32, 16, 16]), "w2": random(8, 32, 1, 1)},
    ),
    "resize to whole sizes": (
        [make("Resize", ["c", "", "", "sizes"], ["z"], "resize", mode="linear")],
        {"sizes": np.array([1, 32, 32, 32]), "w2": random(8, 32, 1, 1)},
    ),
    "resize to the same size": (
        [make("Resize", ["c", "", "", "sizes"], ["s"], "resize", mode="linear"), make("Add", ["c", "s"], ["z"], "sum")],
        {"sizes": np.array([1, 32, 16, 16]), "w2": random(8, 32, 1, 1)},
    ),
    "resize to odd sizes": (
        [make("Resize", ["c", "", "", "sizes"], ["z"], "resize", mode="cubic")],
        {"sizes": np.array([1, 32, 21, 11]), "w2": random(8, 32, 1, 1)},
    ),
    "group norm as an instance norm": (
        [
            make("Reshape", ["c", "fold"], ["f"], "fold"),
            make("InstanceNormalization", ["f", "ones", "zeros"], ["n"], "norm"),
            make("Reshape", ["n", "unfold"], ["u"], "unfold"),
            make("Mul", ["u", "g"], ["m"], "scale"),
            make("Add", ["m", "h"], ["z"], "shift"),
        ],
        {
            "fold": np.array([0, 16, -1]), "unfold": np.array([1, 32, 16, 16]), "ones": np.ones(16, np.float32),
            "zeros": np.zeros(16, np.float32), "g": random(32, 1, 1), "h": random(32, 1, 1, seed=1),
            "w2": random(8, 32, 1, 1),
        },
    ),
    "unequal split": (
        [
            make("Split", ["c", "sizes"], ["p", "q"], "split", axis=1),
            make("Relu", ["p"], ["pr"], "relu"),
            make("Concat", ["q", "pr"], ["z"], "join", axis=1),
        ],
        {"sizes": np.array([24, 8]), "w2": random(8, 32, 1, 1)},
    ),
    "three slices": (
        [
            make("Slice", ["c", f"s{k}", f"e{k}", "axis"], [f"p{k}"], f"slice{k}")
            for k in range(2)
        ]
        + [make("Add", ["p0", "p1"], ["z"], "sum")],
        {
            "s0": np.array([0]), "e0": np.array([16]), "s1": np.array([16]), "e1": np.array([2**31]),
            "axis": np.array([1]), "w2": random(8, 16, 1, 1),
        },
    ),
    "depthwise": (
        [make("Conv", ["c", "wd"], ["z"], "depthwise", group=32, pads=[1] * 4)],
        {"wd": random(32, 1, 3, 3), "w2": random(8, 32, 1, 1)},
    ),
    "grouped": (
        [make("Conv", ["c", "wg"], ["z"], "grouped", group=2)],
        {"wg": random(32, 16, 1, 1), "w2": random(8, 32, 1, 1)},
    ),
    "batch norm": (
        [make("BatchNormalization", ["c", "g", "h", "m", "v"], ["z"], "norm")],
        {
            "g": random(32), "h": random(32, seed=1), "m": random(32, seed=2),
            "v": np.square(random(32, seed=3)) + 0.5, "w2": random(8, 32, 1, 1),
        },
    ),
    "bias as an addition": (
        [make("Conv", ["c", "wb"], ["cb"], "plain"), make("Add", ["cb", "bb"], ["z"], "bias")],
        {"wb": random(32, 32, 1, 1), "bb": random(1, 32, 1, 1), "w2": random(8, 32, 1, 1)},
    ),
    "squeeze and excite": (
        [
            make("GlobalAveragePool", ["c"], ["p"], "pool"),
            make("Conv", ["p", "ws"], ["s"], "squeeze"),
            make("Relu", ["s"], ["sr"], "relu"),
            make("Conv", ["sr", "we"], ["e"], "excite"),
            make("HardSigmoid", ["e"], ["h"], "gate", alpha=0.1666667, beta=0.5),
            make("Mul", ["c", "h"], ["z"], "scale"),
        ],
        {"ws": random(16, 32, 1, 1), "we": random(32, 16, 1, 1), "w2": random(8, 32, 1, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("tail", TAILS)
def test_numbers_that_follow_a_width_follow(tmp_path: Path, tail: str) -> None:
    nodes, weights = TAILS[tail]
    obeys_the_rule(with_tail(tmp_path / "net.onnx", nodes, weights), tmp_path, IMAGE)
    assert shapes(tmp_path / "pruned.onnx")["w1"] == [16, 3, 3, 3]


def test_split_sizes_of_old_opsets_are_attributes_and_follow(tmp_path: Path) -> None:
    nodes = [
        make("Split", ["c"], ["p", "q"], "split", axis=1, split=[24, 8]),
        make("Concat", ["q", "p"], ["z"], "join", axis=1),
    ]
    path = with_tail(tmp_path / "net.onnx", nodes, {"w2": random(8, 32, 1, 1)}, opset=11)
    obeys_the_rule(path, tmp_path, IMAGE)
    split = onnx.load(str(tmp_path / "pruned.onnx")).graph.node[1]
    assert sum(next(a.ints for a in split.attribute if a.name == "split")) == 16


def test_kernels_stored_the_other_way_round_and_channels_last(tmp_path: Path) -> None:
    """As tf2onnx writes a network: images with channels last, products with weights [inputs, outputs]."""
    nodes = [
        make("Transpose", ["x"], ["t"], "to channels first", perm=[0, 3, 1, 2]),
        make("Conv", ["t", "w1"], ["c"], "first", auto_pad="SAME_UPPER", strides=[2, 2]),
        make("Relu", ["c"], ["r"], "relu"),
        make("ReduceMean", ["r"], ["m"], "mean", axes=[2, 3], keepdims=0),
        make("MatMul", ["m", "k1"], ["h"], "hidden"),
        make("Add", ["h", "b1"], ["hb"], "hidden bias"),
        make("Relu", ["hb"], ["hr"], "hidden relu"),
        make("MatMul", ["hr", "k2"], ["y"], "logits"),
    ]
    weights = {"w1": random(32, 3, 3, 3), "k1": random(32, 64), "b1": random(64), "k2": random(64, 10)}
    path = save_graph(tmp_path / "net.onnx", nodes, weights, inputs={"x": ("n", 16, 16, 3)})
    plan = obeys_the_rule(path, tmp_path, np.ascontiguousarray(IMAGE.transpose(0, 2, 3, 1)))
    assert {group.id for group in plan.groups} == {"w1", "k1"}
    batch = np.random.default_rng(1).random((3, 16, 16, 3), dtype=np.float32)
    assert run(tmp_path / "pruned.onnx", batch)[0].shape == (3, 10)


def test_weights_as_inputs_change_their_shape_there_too(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, tensor.dims))
    onnx.save(model, str(path))
    obeys_the_rule(path, tmp_path, IMAGE)
    inputs = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in onnx.load(str(tmp_path / "pruned.onnx")).graph.input
    }
    assert inputs["w2"] == [16, 16, 3, 3]
    assert list(inputs) == ["x", "w1", "b1", "w2", "b2", "w3", "b3"]


def test_weights_in_constant_nodes_and_notes_on_shapes(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    made = [make("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes = [*made, *model.graph.node]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    onnx.save(onnx.shape_inference.infer_shapes(model), str(path))
    output, plan = pruned(path, tmp_path)
    assert [group.id for group in plan.groups] == ["w1", "w2"]
    notes = {
        v.name: v.type.tensor_type.shape.dim[1].dim_value
        for v in onnx.load(str(output)).graph.value_info
        if v.name in ("c1", "r1", "c2")
    }
    assert notes == {"c1": 16, "r1": 16, "c2": 16}
    assert run(output, IMAGE)[0].shape == (1, 10)


def test_a_constant_that_two_nodes_need_differently_is_copied(tmp_path: Path) -> None:
    nodes = [
        make("Conv", ["x", "w1"], ["c"], "first"),
        make("Conv", ["x", "w2"], ["d"], "second"),
        make("Reshape", ["c", "shape"], ["cr"], "one"),
        make("Reshape", ["d", "shape"], ["dr"], "other"),
        make("Conv", ["cr", "v1"], ["p"], "third"),
        make("Conv", ["dr", "v2"], ["q"], "fourth"),
        make("Add", ["p", "q"], ["y"], "sum"),
    ]
    weights = {
        "w1": random(32, 3, 1, 1), "w2": random(32, 3, 1, 1, seed=1), "shape": np.array([1, 32, 8, 32]),
        "v1": random(8, 32, 1, 1), "v2": random(8, 32, 1, 1),
    }  # fmt: skip
    path = save_graph(tmp_path / "net.onnx", nodes, weights)
    ef.prune(path, output=tmp_path / "out.onnx", keep={"w1": 0.25, "w2": 0.5})
    constants = {
        t.name: numpy_helper.to_array(t).tolist() for t in onnx.load(str(tmp_path / "out.onnx")).graph.initializer
    }
    sizes = sorted(value for name, value in constants.items() if name.startswith("shape"))
    assert sizes[:2] == [[1, 8, 8, 32], [1, 16, 8, 32]]
    assert run(tmp_path / "out.onnx", IMAGE)[0].shape == (1, 8, 8, 32)


def test_several_inputs(tmp_path: Path) -> None:
    nodes = [
        make("Conv", ["left", "w1"], ["a"], "first"),
        make("Conv", ["right", "w1"], ["b"], "second"),
        make("Sub", ["a", "b"], ["d"], "difference"),
        make("Conv", ["d", "w2"], ["y"], "last"),
    ]
    shape = (1, 3, 16, 16)
    path = save_graph(
        tmp_path / "net.onnx", nodes, {"w1": random(32, 3, 1, 1), "w2": random(8, 32, 1, 1)},
        inputs={"left": shape, "right": shape},
    )  # fmt: skip
    output, plan = pruned(path, tmp_path)
    expected = run(zeroed(path, plan.removed_indices(), tmp_path / "zeroed.onnx"), IMAGE, IMAGE[:, :, ::-1].copy())
    np.testing.assert_allclose(run(output, IMAGE, IMAGE[:, :, ::-1].copy())[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "lsq"])
def test_compensation_brings_the_answer_nearer(tmp_path: Path, method: str) -> None:
    path, images = residual_network(tmp_path / "net.onnx"), torch.rand(16, 3, 16, 16)
    expected = run(path, IMAGE)[0]
    removed = np.abs(run(pruned(path, tmp_path)[0], IMAGE)[0] - expected).max()
    output, _ = pruned(path, tmp_path, compensation=method, images=images)
    assert np.abs(run(output, IMAGE)[0] - expected).max() < removed / 4


def test_compensation_of_products_stored_the_other_way_round(tmp_path: Path) -> None:
    nodes = [
        make("Flatten", ["x"], ["f"], "flatten"),
        make("MatMul", ["f", "k1"], ["h"], "hidden"),
        make("Add", ["h", "b1"], ["hb"], "hidden bias"),
        make("Relu", ["hb"], ["hr"], "relu"),
        make("MatMul", ["hr", "k2"], ["o"], "out"),
        make("Add", ["o", "b2"], ["y"], "out bias"),
    ]
    weights = {"k1": random(768, 64), "b1": random(64), "k2": random(64, 10), "b2": random(1, 10)}
    path = save_graph(tmp_path / "net.onnx", nodes, weights, inputs={"x": ("n", 3, 16, 16)})
    expected = run(path, IMAGE)[0]
    removed = np.abs(run(pruned(path, tmp_path)[0], IMAGE)[0] - expected).max()
    done = ef.prune(path, output=tmp_path / "fit.onnx", compensation="lsq", images=torch.rand(64, 3, 16, 16))
    assert done.compensation.changed == ("k1", "k2")
    assert not done.compensation.without_sink
    assert np.abs(run(tmp_path / "fit.onnx", IMAGE)[0] - expected).max() < removed / 2


def test_the_score_that_looks_at_images_takes_a_folder(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    path = two_convolutions(tmp_path / "net.onnx")
    plan = ef.plan_pruning(path, score="activation_mean", images=tmp_path / "photos")
    assert plan.score == "activation_mean"
    assert len(plan.groups) == 2


def test_the_least_of_the_residual_blocks_goes(tmp_path: Path) -> None:
    path, images = residual_network(tmp_path / "net.onnx", blocks=3), torch.rand(8, 3, 16, 16)
    output, plan = pruned(path, tmp_path, remove_blocks=1, images=images, compensation="mean", keep_ratio=1.0)
    assert [block.path for block in plan.removed_blocks] == ["3/add"]  # its weights are the smallest
    graph = onnx.load(str(output)).graph
    assert "3/first" not in [node.name for node in graph.node]
    assert "w3a" not in shapes(output)
    assert shapes(output)["3/add.shift"] == [32, 1, 1]
    expected = run(path, IMAGE)[0]
    assert np.abs(run(output, IMAGE)[0] - expected).max() < 0.1 * np.abs(expected).max()


def test_a_folder_holds_the_graph_the_plan_and_its_source(tmp_path: Path) -> None:
    path = residual_network(tmp_path / "net.onnx")
    ef.prune(path, output=tmp_path / "pruned", remove_blocks=["1/add"], images=torch.rand(4, 3, 16, 16))
    assert {file.name for file in (tmp_path / "pruned").iterdir()} == {"model.onnx", "plan.json", "source.json"}
    loaded = load_source(str(tmp_path / "pruned"), SourceOptions())
    assert loaded.network == tmp_path / "pruned" / "model.onnx"
    plan = PrunePlan.load(tmp_path / "pruned" / "plan.json")
    ef.apply_plan(path, plan, output=tmp_path / "again.onnx")
    assert onnx.load(str(tmp_path / "again.onnx")) == onnx.load(str(tmp_path / "pruned" / "model.onnx"))


def test_a_plan_fits_another_batch_and_size_of_the_same_network(tmp_path: Path) -> None:
    plan = ef.plan_pruning(residual_network(tmp_path / "net.onnx"))
    other = residual_network(tmp_path / "other.onnx", batch="n", size=24)
    ef.apply_plan(other, plan, output=tmp_path / "out.onnx")
    assert run(tmp_path / "out.onnx", np.zeros((5, 3, 24, 24), np.float32))[0].shape == (5, 10)


def test_a_plan_of_another_network_names_the_first_difference(tmp_path: Path) -> None:
    plan = ef.plan_pruning(residual_network(tmp_path / "net.onnx"))
    other = residual_network(tmp_path / "other.onnx", width=48)
    with pytest.raises(PlanMismatchError, match=r"'w0' has shape \(48, 3, 3, 3\).*\(32, 3, 3, 3\)"):
        ef.apply_plan(other, plan, output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_a_plan_that_would_change_an_output_is_refused(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    plan = ef.plan_pruning(path)
    first = plan.groups[0]
    members = [m.model_copy() if hasattr(m, "model_copy") else m for m in first.members]
    moved = [type(m)(name, 0, m.role, m.spans) for m, name in zip(members[:2], ("w3", "b3"), strict=False)]
    wrong = plan.model_copy(
        update={
            "groups": (first.model_copy(update={"id": "w3", "width": 10, "kept": (0, 1), "members": tuple(moved)}),)
        }
    )
    wrong = PrunePlan.model_validate(
        {
            **wrong.model_dump(),
            "groups": [{**g.model_dump(), "members": [_spanning(m, 10) for m in g.members]} for g in wrong.groups],
        }
    )
    with pytest.raises(ModelError, match=r"output 'y' .* would change its shape from \(1, 10\) to \(1, 2\)"):
        ef.apply_plan(path, wrong, output=tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def _spanning(member: Any, size: int) -> Any:
    from eightfold.compress.trace.groups import Member, Span

    return Member(member.tensor, member.dim, member.role, (Span(0, 0, size),))


def test_inspection_names_nodes_and_what_they_freeze(tmp_path: Path) -> None:
    found = ef.inspect_model(two_convolutions(tmp_path / "net.onnx"))
    assert found.macs == 3 * 32 * 9 * 256 + 32 * 32 * 9 * 256 + 320
    assert "frozen:     10  output of the model" in found.describe()


def integers(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [make("Cast", ["x"], ["c"], "cast", to=1), make("MatMul", ["c", "w"], ["y"], "product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, (1, 16))],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(random(16, 8), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "i.onnx")
    return tmp_path / "i.onnx"


def narrow(tmp_path: Path) -> Path:
    return save_graph(tmp_path / "narrow.onnx", [make("Conv", ["x", "w"], ["y"], "only")], {"w": random(32, 3, 1, 1)})


BAD: dict[str, tuple[Any, dict[str, Any], type[EightfoldError], str]] = {
    "inputs that are no images": (
        integers, {"images": "photos"}, UsageError, r"takes no images \(inputs: x \[1, 16\] int64\)",
    ),
    "no group that can go": (
        narrow, {}, ModelError, r"no group of channels of .*narrow\.onnx can be pruned \(32 channels: output",
    ),
    "a compensation of batch norms": (
        lambda folder: two_convolutions(folder / "net.onnx"), {"compensation": "bn_beta"}, UnknownNameError,
        r"compensation of an ONNX file 'bn_beta'; allowed: lsq, mean, none",
    ),
    "a size that the file does not have": (
        lambda folder: two_convolutions(folder / "net.onnx"), {"size": (32, 32)}, ModelError,
        r"input 'x' has the fixed size 16x16, not 32x32",
    ),
    "compensation without images": (
        lambda folder: two_convolutions(folder / "net.onnx"), {"compensation": "lsq"}, UsageError, "no images",
    ),
    "a block that is not there": (
        lambda folder: residual_network(folder / "net.onnx"), {"remove_blocks": ["1/sum"]}, UnknownNameError,
        r"residual block '1/sum'; allowed: 1/add, 2/add",
    ),
    "more blocks than there are": (
        lambda folder: residual_network(folder / "net.onnx"), {"remove_blocks": 3}, UsageError, "3 of 2 residual",
    ),
    "a file that is not there": (lambda folder: folder / "none.onnx", {}, ModelError, "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    build, options, error, words = BAD[name]
    path = build(tmp_path)
    with pytest.raises(error, match=words) as raised:
        ef.prune(path, output=tmp_path / "out.onnx", **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out.onnx").exists()


def test_the_source_itself_is_never_written_over(tmp_path: Path) -> None:
    path = two_convolutions(tmp_path / "net.onnx")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        ef.prune(path, output=path)
    assert path.read_bytes() == before


def test_the_module_of_the_original_is_untouched_by_compensation(tmp_path: Path) -> None:
    """Least squares change weights in place; those of the file that is read must not."""
    path = residual_network(tmp_path / "net.onnx")
    before = {name: tensor.clone() for name, tensor in open_onnx(path).module.state_dict().items()}
    ef.prune(path, output=tmp_path / "a.onnx", compensation="lsq", images=torch.rand(8, 3, 16, 16), keep_ratio=0.5)
    after = open_onnx(path).module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
