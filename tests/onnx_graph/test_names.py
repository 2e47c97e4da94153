"""Names that mean no tensor or several are refused where a file is read; what onnxruntime takes for a weight is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, helper, numpy_helper

from eightfold.errors import ModelError
from eightfold.onnx_graph.onnx_files import load_onnx, save_onnx
from tests.export.networks import graph

ROWS = np.random.default_rng(0).random((2, 8), dtype=np.float32)


def changed(tmp_path: Path, change: Callable[[GraphProto], None]) -> Path:
    weight = np.eye(8, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["images", "w"], ["x"]), helper.make_node("Relu", ["x"], ["out"])]
    model = graph(nodes, {"images": [2, 8]}, {"out": [2, 8]}, {"w": weight})
    change(model.graph)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


FAULTS: dict[str, tuple[Callable[[GraphProto], None], str]] = {
    "input twice": (lambda g: g.input.append(g.input[0]), "input 'images' is there twice; .*; export it again"),
    "weight twice": (lambda g: g.initializer.append(g.initializer[0]), "initializer 'w' is there twice"),
    "made twice": (lambda g: g.node.append(helper.make_node("Relu", ["x"], ["out"])), "tensor 'out' is there twice"),
    "input made": (
        lambda g: g.node.append(helper.make_node("Relu", ["x"], ["images"])),
        "tensor 'images' is",
    ),
    "output of nothing": (lambda g: g.output.append(value("no", 1)), "nothing makes its output 'no'"),
    "output without a name": (lambda g: g.output.append(value("", 1)), "nothing makes its output ''"),
}


@pytest.mark.parametrize(("change", "words"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("normal", [True, False])
def test_a_name_without_one_meaning_is_refused(
    tmp_path: Path, change: Callable[[GraphProto], None], words: str, normal: bool
) -> None:
    ort = pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")
    path = changed(tmp_path, change)
    with pytest.raises(ModelError, match=rf"net\.onnx: {words}"):
        load_onnx(path, normal=normal)
    if "initializer" not in words:  # of two, onnxruntime takes the last
        with pytest.raises(Exception, match=r"(?i)duplicate|not a graph|invalid|output"):
            ort.InferenceSession(path)


def test_an_output_listed_twice_needs_a_name_of_its_own(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda g: g.output.append(g.output[0]))
    with pytest.raises(ModelError, match=r"output 'out' is listed twice; .*; put an Identity node with a name"):
        load_onnx(path)

    def named(g: GraphProto) -> None:
        g.node.append(helper.make_node("Identity", ["out"], ["again"]))
        g.output.append(value("again", 2, 8))

    assert len(load_onnx(changed(tmp_path, named)).graph.output) == 2


TAKEN: dict[str, Callable[[GraphProto], None]] = {
    "a weight that is an input": lambda g: g.input.append(value("w", 8, 8)),
    "an input that is an output": lambda g: g.output.append(g.input[0]),
    "a weight that is an output": lambda g: g.output.append(value("w", 8, 8)),
    "a constant that is an output": lambda g: (
        g.node.append(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(ROWS))),
        g.output.append(value("c", 2, 8)),
    )[0],
}


@pytest.mark.parametrize("change", TAKEN.values(), ids=TAKEN)
def test_what_runs_is_read_and_written(tmp_path: Path, change: Callable[[GraphProto], None]) -> None:
    ort = pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")
    path = changed(tmp_path, change)
    again = save_onnx(load_onnx(path), tmp_path / "again.onnx")
    before, after = (ort.InferenceSession(file).run(None, {"images": ROWS}) for file in (path, again))
    for known, seen in zip(before, after, strict=True):
        np.testing.assert_array_equal(known, seen)
