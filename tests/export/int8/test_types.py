"""Types of files, of their inputs and of what they are calibrated with: converted, or refused in a line with both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import eightfold as ef
from eightfold.cli.app import app
from eightfold.errors import EightfoldError
from eightfold.export.fp16.fp16 import half_onnx
from tests.export.int8.graphs import ROWS, answers, quantized, random, saved, sqnr_db, weights


def plain(path: Path) -> Path:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", kernel_shape=[3, 3])
    return saved(path, [node], weights(w=random(16, 4, 3, 3), b=random(16)), {"y": (1, 16, 6, 6)})


def typed(path: Path, elem_type: int, *, cast: bool = False) -> Path:
    """A file of another input type, with a Cast behind the input, or all in that type."""
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    constants = {"w": random(16, 4, 3, 3), "b": random(16)}
    if not cast:
        constants = {name: value.astype(dtype) for name, value in constants.items()}
    nodes = [helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT)] if cast else []
    nodes.append(helper.make_node("Conv", ["float" if cast else "x", "w", "b"], ["y"], name="conv"))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", elem_type, (1, 4, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT if cast else elem_type, (1, 16, 6, 6))],
        weights(**constants),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


SAME: dict[str, Callable[[], Any]] = {
    "float64 rows": lambda: ROWS.astype(np.float64),
    "float64 batches": lambda: list(ROWS.astype(np.float64).reshape(5, 8, 4, 8, 8)),
    "torch tensors": lambda: [torch.from_numpy(row) for row in ROWS],
    "torch tensors with gradients": lambda: [torch.from_numpy(row).requires_grad_() for row in ROWS],
    "a data loader of pairs": lambda: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(ROWS), torch.arange(len(ROWS))), batch_size=8
    ),
    "pairs with boxes": lambda: [(row, np.zeros((3, 5))) for row in ROWS],
    "pairs with numbers": lambda: [(row, 3) for row in ROWS],
    "pairs with dictionaries": lambda: [(row, {"label": 3}) for row in ROWS],
    "lists of one": lambda: [[row] for row in ROWS],
    "a generator": lambda: (row for row in ROWS.astype(np.float64)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_rows_in_another_form_give_the_same_ranges(tmp_path: Path, name: str) -> None:
    path = plain(tmp_path / "a.onnx")
    expected = ef.calibrate(path, ROWS, None, method="minmax")
    found = ef.calibrate(path, SAME[name](), None, method="minmax")
    assert found.tensors == expected.tensors
    _, report = ef.quantize(path, found, tmp_path / "q.onnx", form="qdq", images=SAME[name]())
    assert report.quantized == ("conv",)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "uint8 rows": (lambda: ROWS.astype(np.uint8), "uint8; allowed: float32"),
    "int64 rows": (lambda: ROWS.astype(np.int64), "int64; allowed: float32"),
    "bool rows": (lambda: ROWS > 0, "bool; allowed: float32"),
    "dictionaries": (lambda: [{"image": row} for row in ROWS], "image 0 is a dict; allowed: an array"),
    "words": (lambda: [("a", "b")], "image 0 is a tuple of str"),
    "ragged lists": (lambda: [[[1.0], [2.0, 3.0]]], "image 0 is a list"),
    "complex numbers": (lambda: [row.astype(np.complex64) for row in ROWS], "image 0 is a ndarray"),
    "a number": (lambda: 7, "images of type int"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_rows_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    make, words = REFUSED[name]
    with pytest.raises(EightfoldError, match=words) as caught:
        ef.calibrate(plain(tmp_path / "a.onnx"), make(), None)
    assert "\n" not in str(caught.value)


INPUT_TYPES = {
    "uint8": TensorProto.UINT8,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "uint16": TensorProto.UINT16,
}


@pytest.mark.parametrize("name", INPUT_TYPES)
def test_a_file_of_another_input_type_and_a_float_preprocess(tmp_path: Path, name: str) -> None:
    path = typed(tmp_path / "a.onnx", INPUT_TYPES[name], cast=True)
    preprocess = ef.Preprocess(height=8, width=8, channels=4)
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 4)).astype(np.uint8)
    with pytest.raises(EightfoldError, match=name) as caught:
        ef.calibrate(path, images, preprocess)
    assert "\n" not in str(caught.value)
    assert "float32" in str(caught.value)


def test_a_uint8_file_takes_its_own_preprocess_and_a_float_file_does_not(tmp_path: Path) -> None:
    preprocess = ef.Preprocess(height=8, width=8, channels=4, dtype="uint8")
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 4)).astype(np.uint8)
    path = typed(tmp_path / "a.onnx", TensorProto.UINT8, cast=True)
    ranges = ef.calibrate(path, images, preprocess)
    assert ef.quantize(path, ranges, tmp_path / "q.onnx", form="qdq")[1].quantized
    with pytest.raises(EightfoldError, match=r"uint8; allowed: float32, .*give the Preprocess dtype: float32"):
        ef.calibrate(plain(tmp_path / "b.onnx"), images, preprocess)


@pytest.mark.parametrize("name", ["float16", "float64", "bfloat16"])
def test_a_file_that_computes_in_another_float_type_is_refused(tmp_path: Path, name: str) -> None:
    elem_type = INPUT_TYPES.get(name, TensorProto.BFLOAT16)
    path = typed(tmp_path / "a.onnx", elem_type)
    with pytest.raises(EightfoldError, match=rf"{name}; allowed: .*float32"):
        ef.calibrate(path, ROWS, None)
    ranges = ef.calibrate(plain(tmp_path / "b.onnx"), ROWS, None)
    with pytest.raises(EightfoldError, match=rf"{name}; allowed: .*float32"):
        ef.quantize(path, ranges, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


def test_a_half_file_with_float32_ends_is_refused(tmp_path: Path) -> None:
    half = half_onnx(plain(tmp_path / "a.onnx"), tmp_path / "half.onnx")
    with pytest.raises(EightfoldError, match=r"computes 'conv' \(Conv\) in float16; allowed: a float32 graph"):
        ef.calibrate(half, ROWS, None)


@pytest.mark.parametrize("identity", [True, False])
def test_weights_of_16_bits_behind_a_cast_become_int8(tmp_path: Path, identity: bool) -> None:
    nodes = [helper.make_node("Cast", ["w16"], ["w"], to=TensorProto.FLOAT)]
    if identity:
        nodes.append(helper.make_node("Identity", ["w"], ["w_again"]))
    nodes.append(helper.make_node("Conv", ["x", "w_again" if identity else "w"], ["y"], name="conv"))
    path = saved(tmp_path / "a.onnx", nodes, weights(w16=random(16, 4, 3, 3).astype(np.float16)), {"y": (1, 16, 6, 6)})
    int8, report = quantized(path)
    assert report.quantized == ("conv",)
    assert sqnr_db(answers(path, ROWS)["y"], answers(int8, ROWS)["y"]) > 30
    stored = [numpy_helper.to_array(each).dtype for each in onnx.load(int8).graph.initializer]
    assert np.dtype(np.int8) in stored


def test_quantize_that_quantizes_nothing_fails(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx", [helper.make_node("Sin", ["x"], ["y"])], [], {"y": (1, 4, 8, 8)})
    ranges = ef.calibrate(path, ROWS, None)
    with pytest.raises(EightfoldError, match=r"no layer of .* becomes INT8 for cpu-x86"):
        ef.quantize(path, ranges, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("command", ["simplify", "half"])
def test_commands_say_which_types_differ(tmp_path: Path, command: str) -> None:
    path = typed(tmp_path / "a.onnx", TensorProto.UINT8, cast=True)
    ef.Preprocess(height=8, width=8, channels=4).save(tmp_path / "p.json")
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 4), np.uint8))
    arguments = [command, path, "-o", tmp_path / "o.onnx", "--images", tmp_path, "--preprocess", tmp_path / "p.json"]
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code != 0
    assert "is given float32; allowed: uint8" in str(result.exception)
    assert not (tmp_path / "o.onnx").exists()
