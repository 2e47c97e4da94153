"""The opset that targets read, and graphs rewritten for an older or a newer one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.export.fixed_size.batches import export_batches
from eightfold.export.opset.opset_conversion import with_opset
from eightfold.export.opset.opsets import READERS, newest_opset, opset_for
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.torch.onnx_export import export_onnx, onnx_from_module
from eightfold.export.verify.verify import run_onnx
from eightfold.onnx_graph.onnx_files import opset_of, tensor_specs
from tests.export.networks import graph, images, saved, small_net


@pytest.mark.parametrize(
    ("targets", "opset"),
    [
        ([], 17),
        (["cpu-x86", "rtx:sm86"], 17),
        (["tensorrt:8.2"], 13),
        (["tensorrt:8.2.1"], 13),
        (["tensorrt:8.5"], 16),
        (["tensorrt:8.6"], 17),
        (["tensorrt:11", "tensorrt-dla:8.5"], 16),
        (["tensorrt:10.3", "openvino", "tensorrt:8.4"], 16),
    ],
)
def test_the_opset_is_one_that_all_targets_read(targets: list[str], opset: int) -> None:
    assert opset_for(targets) == opset


def test_every_entry_says_where_it_stands() -> None:
    assert all(reader.source for reader in READERS)
    versions = [reader for reader in READERS if reader.family == "tensorrt"]
    assert versions == sorted(versions, key=lambda reader: (reader.since, reader.opset))


@pytest.mark.parametrize("target", ["tpu", "tensorrt:7.1", "tensorrt:x", "tensorrt:99"])
def test_an_unknown_target_is_refused(target: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown target '{target}'; allowed: .*tensorrt:8.2"):
        newest_opset(target)


def test_rtx_reads_the_opset_of_its_entry(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    file = export_onnx(small_net(), tmp_path / "x.onnx", batch=1, image_size=16, opset=newest_opset("rtx:sm86"))
    assert build_engine(file, tmp_path / "x.engine", target="rtx:sm86", precision="fp16").is_file()


class Block(torch.nn.Module):
    """Operators that came, or changed, after opset 13."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.layer_norm, self.group_norm = torch.nn.LayerNorm(8), torch.nn.GroupNorm(2, 8)
        self.acts = torch.nn.ModuleList(
            [torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.Hardswish(), torch.nn.Mish(), torch.nn.SiLU()]
        )
        torch.nn.init.uniform_(self.group_norm.weight)
        torch.nn.init.uniform_(self.layer_norm.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.group_norm(self.stem(images))
        x = self.layer_norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for act in self.acts:
            x = act(x)
        x = torch.nn.functional.pad(x, (1, 1, 0, 2), mode="reflect")
        x = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        a, b, c = x.chunk(3, dim=1)
        pooled = torch.nn.functional.avg_pool2d(torch.cat([a, c, b], 1), 2)
        return pooled.mean((2, 3)) + pooled.amax((2, 3))


@pytest.fixture(scope="module")
def newer() -> onnx.ModelProto:
    torch.manual_seed(0)
    return onnx_from_module(Block().eval(), torch.rand(2, 3, 16, 16), opset=21, exporter="dynamo")


class Folded(torch.nn.Module):
    """The sum of overlapping blocks came with opset 18."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.fold(x.flatten(2), (7, 7), 4)


@pytest.mark.parametrize("opset", [0, -4, 999])
def test_a_number_that_is_no_opset_is_refused_before_the_work(opset: int) -> None:
    with pytest.raises(UsageError, match=rf"opset {opset}; allowed: 1 to \d+, which the installed onnx knows"):
        onnx_from_module(small_net(), torch.zeros(1, 3, 16, 16), opset=opset)
    with pytest.raises(UsageError, match=f"opset {opset}; allowed"):
        with_opset(onnx_from_module(small_net(), torch.zeros(1, 3, 16, 16)), opset, remedy="")


def test_what_needs_a_later_opset_gets_it_where_all_targets_read_that() -> None:
    example = torch.rand(1, 16, 4, 4)
    for targets in ((), ("tensorrt:10.3", "cpu-x86")):
        model = onnx_from_module(Folded(), example, targets=targets)
        assert opset_of(model) == 18
        np.testing.assert_allclose(
            next(iter(run_onnx(model, {"images": example.numpy()}).values())), Folded()(example), atol=1e-5
        )
    for asked in ({"opset": 17}, {"targets": ("cpu-x86", "tensorrt:8.6")}):
        with pytest.raises(ModelError, match="cannot be converted to 17"):
            onnx_from_module(Folded(), example, **asked)


def _answer(model: onnx.ModelProto) -> NDArray[Any]:
    (input,) = tensor_specs(model)[0]
    (output,) = run_onnx(model, {input.name: images(input.shape[0])}).values()
    return output


@pytest.mark.parametrize("opset", [13, 16, 18, 20, 22])
def test_another_opset_gives_the_same_answer(newer: onnx.ModelProto, opset: int) -> None:
    made = with_opset(newer, opset, remedy="")
    onnx.checker.check_model(made, full_check=True)
    assert opset_of(made) == opset
    np.testing.assert_allclose(_answer(made), _answer(newer), rtol=1e-5)


def test_the_graph_that_is_rewritten_is_left_alone(newer: onnx.ModelProto) -> None:
    before = newer.SerializeToString(deterministic=True)
    with_opset(newer, 13, remedy="")
    assert newer.SerializeToString(deterministic=True) == before


def _pads_one_axis() -> onnx.ModelProto:
    weights = {"pads": np.array([1, 2]), "value": np.array(0, np.float32), "axes": np.array([3])}
    node = helper.make_node("Pad", ["images", "pads", "value", "axes"], ["out"])
    return graph([node], {"images": [1, 3, 16, 16]}, {"out": [1, 3, 16, 19]}, weights, opset=18)


def _resizes_two_axes() -> onnx.ModelProto:
    sizes = {"sizes": np.array([20, 8])}
    node = helper.make_node("Resize", ["images", "", "", "sizes"], ["out"], mode="linear", axes=[2, 3])
    return graph([node], {"images": [1, 3, 16, 16]}, {"out": [1, 3, 20, 8]}, sizes, opset=18)


def _splits_into_parts() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Split", ["images"], ["a", "b", "c"], axis=2, num_outputs=3),
        helper.make_node("Concat", ["c", "a", "b"], ["out"], axis=2),
    ]
    return graph(nodes, {"images": [1, 3, 16, 16]}, {"out": [1, 3, 16, 16]}, opset=18)


def _takes_part_of_a_shape() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["images"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["n", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["images", "shape"], ["out"]),
    ]
    rest = {"rest": np.array([-1])}
    return graph(nodes, {"images": [1, 3, 16, 16]}, {"out": [1, 768]}, rest, opset=17)


@pytest.mark.parametrize("make", [_pads_one_axis, _resizes_two_axes, _splits_into_parts, _takes_part_of_a_shape])
def test_what_was_said_otherwise_before(make: Callable[[], onnx.ModelProto]) -> None:
    made = with_opset(make(), 13, remedy="")
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_array_equal(_answer(made), _answer(make()))


@pytest.mark.parametrize(
    ("op", "options", "words"),
    [
        ("GridSample", {}, r"opset 20 and cannot be converted to 13 \(GridSample 'node0' came with a later opset\)"),
        ("Resize", {"antialias": 1}, r"Resize 'node0' uses what came with a later opset"),
    ],
)
def test_what_an_older_opset_cannot_say_is_named(op: str, options: dict[str, int], words: str) -> None:
    inputs = {"GridSample": ["images", "grid"], "Resize": ["images", "", "scales"]}[op]
    node = helper.make_node(op, inputs, ["out"], **options)  # type: ignore[arg-type]  # any attribute
    weights = {"grid": np.zeros((1, 4, 4, 2), np.float32), "scales": np.ones(4, np.float32)}
    model = graph([node], {"images": [1, 3, 4, 4]}, {"out": [1, 3, 4, 4]}, {inputs[-1]: weights[inputs[-1]]}, opset=20)
    with pytest.raises(ModelError, match=words + r".*; allowed: opset 20 and up for this model; try another"):
        with_opset(model, 13, remedy="try another")


def test_a_file_is_converted_for_the_target_that_is_named(tmp_path: Path, newer: onnx.ModelProto) -> None:
    file = saved(newer, tmp_path / "newer.onnx")
    for targets, opset in (((), 21), (("tensorrt:10.15",), 21), (("tensorrt:8.2", "cpu-x86"), 13)):
        output = tmp_path / f"{opset}.onnx"
        (step, _) = export_batches(file, {2: output}, images=images(2), targets=targets)[2]
        made = onnx.load(output)
        assert opset_of(made) == opset
        assert made.ir_version == helper.find_min_ir_version_for(list(made.opset_import))
        assert step.tool == ("freeze" if opset == 21 else "freeze, opset 21 to 13")
        assert step.max_rel_error is not None
        assert step.max_rel_error < 1e-4


def test_an_old_file_is_converted_where_an_opset_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Upsample", ["images", "scales"], ["large"], mode="nearest"),
        helper.make_node("ReduceMean", ["large"], ["out"], axes=[2, 3], keepdims=0),
    ]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    old = graph(nodes, {"images": ["n", 3, 16, 16]}, {"out": ["n", 3]}, scales, opset=9)
    file = saved(old, tmp_path / "old.onnx")
    (step, _) = export_batches(file, {1: tmp_path / "x.onnx"}, images=images(1), opset=17)[1]
    assert step.tool == "freeze, opset 9 to 17"
    assert opset_of(onnx.load(tmp_path / "x.onnx")) == 17


def test_weights_stay_out_of_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx.version_converter as converter

    seen = []
    convert = converter.convert_version

    def spy(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
        seen.append(model.ByteSize())
        return convert(model, opset)

    monkeypatch.setattr(converter, "convert_version", spy)
    weights = {"w": np.ones((64, 3, 16, 16), np.float32)}
    model = graph(
        [helper.make_node("Conv", ["images", "w"], ["out"])],
        {"images": [1, 3, 16, 16]},
        {"out": [1, 64, 1, 1]},
        weights,
    )
    made = with_opset(model, 21, remedy="")
    assert seen[0] < 2000 < made.ByteSize()
    np.testing.assert_array_equal(_answer(made), _answer(model))
    assert [value.name for value in made.graph.input] == ["images"]


def _shows_mean_and_deviation() -> onnx.ModelProto:
    outputs = ["y", "mean", "inverse"]
    nodes = [
        helper.make_node("LayerNormalization", ["images", "scale"], outputs, axis=2),
        helper.make_node("Sum", outputs, ["out"]),
    ]
    scale = {"scale": np.linspace(1, 2, 256, dtype=np.float32).reshape(16, 16)}
    return graph(nodes, {"images": [1, 3, 16, 16]}, {"out": [1, 3, 16, 16]}, scale, opset=17)


def _crops_two_axes() -> onnx.ModelProto:
    weights = {"roi": np.array([0.2, 0.1, 0.9, 0.8], np.float32), "sizes": np.array([5, 7])}
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear", "axes": [3, 2]}
    node = helper.make_node("Resize", ["images", "roi", "", "sizes"], ["out"], **options)  # type: ignore[arg-type]
    return graph([node], {"images": [1, 3, 16, 16]}, {"out": [1, 3, 7, 5]}, weights, opset=18)


@pytest.mark.parametrize("make", [_shows_mean_and_deviation, _crops_two_axes])
def test_what_few_networks_say_is_said_otherwise_as_well(make: Callable[[], onnx.ModelProto]) -> None:
    made = with_opset(make(), 13, remedy="")
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_allclose(_answer(made), _answer(make()), rtol=1e-5, atol=1e-6)


def _adds_bytes() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["images"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Add", ["bytes", "bytes"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["out"], to=TensorProto.FLOAT),
    ]
    return graph(nodes, {"images": [1, 3, 4, 4]}, {"out": [1, 3, 4, 4]}, opset=17)


def _scans() -> onnx.ModelProto:
    """Before opset 9 the batch came first; the converter says nothing of that."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("s", "x", "t", "y")]
    nodes = [helper.make_node("Add", ["s", "x"], ["t"]), helper.make_node("Identity", ["t"], ["y"])]
    body = helper.make_graph(nodes, "body", values[:2], values[2:])
    scan = helper.make_node("Scan", ["", "start", "images"], ["end", "out"], num_scan_inputs=1, body=body)
    shapes: dict[str, list[int | str]] = {"start": [1, 2], "images": [1, 3, 2]}
    return graph([scan], {**shapes}, {"end": [1, 2], "out": [1, 3, 2]}, opset=8)


@pytest.mark.parametrize(
    ("make", "opset", "words"),
    [
        (_adds_bytes, 13, r"\[ShapeInferenceError\] \(op_type:Add.* unsupported type: tensor\(uint8\)"),
        (_scans, 17, "Scan had a further axis before opset 9"),
    ],
)
def test_what_would_be_no_graph_of_that_opset_is_refused(
    make: Callable[[], onnx.ModelProto], opset: int, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        with_opset(make(), opset, remedy="")
