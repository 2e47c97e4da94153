"""Calibration and the judging of INT8: types of rows and files, ranges by entropy, answers that a cosine misjudges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from graphs import ROWS, answers, quantized, random, saved, sqnr_db, weights
from onnx import TensorProto, helper
from torch import nn

import eightfold as ef
from field_kinds import Case, kind, require

ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}
FORMS: dict[str, Callable[[Any], Any]] = {
    "array": lambda rows: rows,
    "list": list,
    "batches": lambda rows: list(rows.reshape(5, 8, *rows.shape[1:])),
    "generator": lambda rows: (row for row in rows),
    "tensors": lambda rows: [torch.from_numpy(np.ascontiguousarray(row)) for row in rows],
    "pairs": lambda rows: [(row, 1) for row in rows],
    "pairs with boxes": lambda rows: [(row, np.zeros((2, 5))) for row in rows],
    "data loader": lambda rows: torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(rows), torch.arange(len(rows))), batch_size=4
    ),
}


@kind("types of rows and inputs", entry="9")
def types(random_state: Random) -> Iterator[Case]:
    del random_state
    for have, want, form in product(ONNX_TYPES, ONNX_TYPES, FORMS):
        floats = have.startswith("float") and want == "float32"
        same = have == want and want not in ("float64", "float16")
        expected: Any = "right" if floats or same else "either" if have == want == "float16" else "refused"
        if have.startswith("float") and want == "float16":
            expected = "either"
        yield Case(
            f"{form} of {have} for {want}", _rows_for(have, want, form), expected, want if expected == "refused" else ""
        )


def _rows_for(have: str, want: str, form: str) -> Any:
    def run(folder: Path) -> None:
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
                helper.make_node("Conv", ["f", "w"], ["y"], name="conv"),
            ],
            "graph",
            [helper.make_tensor_value_info("x", ONNX_TYPES[want], (1, 4, 8, 8))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 16, 6, 6))],
            weights(w=random(16, 4, 3, 3)),
        )
        path = folder / "a.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        rows = (4 * ROWS).astype(have)
        ranges = ef.calibrate(path, FORMS[form](rows), None, method="minmax")
        written, report = ef.quantize(path, ranges, folder / "q.onnx", form="qdq", images=FORMS[form](rows))
        require(report.quantized == ("conv",), f"{report.quantized} in INT8")
        typed = rows.astype(want)
        require(sqnr_db(answers(path, typed)["y"], answers(written, typed)["y"]) > 25, "another answer")

    return run


@kind("files of other float types", entry="10")
def float_types(random_state: Random) -> Iterator[Case]:
    del random_state
    for name, stored, behind, target in product(
        ("Conv", "Gemm", "MatMul"),
        ("float16", "float64", "bfloat16"),
        ("all", "cast input", "cast weight"),
        ("cpu-x86", "cpu-arm", "openvino", "tensorrt"),
    ):
        right = behind == "cast weight" and stored != "float64"
        yield Case(
            f"{name}, {behind} {stored}, {target}",
            _stored(name, stored, behind, target),
            "either" if right else "refused",
        )


def _stored(operator: str, stored: str, behind: str, target: str) -> Any:
    def run(folder: Path) -> None:
        elem = {"float16": 10, "float64": 11, "bfloat16": 16}[stored]
        dtype = helper.tensor_dtype_to_np_dtype(elem)
        shape = (16, 4, 1, 1) if operator == "Conv" else (8, 16)
        reshaped = (1, 4, 8, 8) if operator == "Conv" else (32, 8)
        nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"])]
        source, weight, result = "r", "w", "y"
        if behind == "cast weight":
            nodes.append(helper.make_node("Cast", ["w"], ["wide"], to=1))
            weight = "wide"
        if behind == "cast input":
            nodes.append(helper.make_node("Cast", ["r"], ["c"], to=elem))
            source, result = "c", "low"
        nodes.append(helper.make_node(operator, [source, weight], [result], name="layer"))
        if behind == "cast input":
            nodes.append(helper.make_node("Cast", ["low"], ["y"], to=1))
        outer = elem if behind == "all" else 1
        out_shape = (1, 16, 8, 8) if operator == "Conv" else (32, 16)
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", outer, (1, 4, 8, 8))],
            [helper.make_tensor_value_info("y", outer, out_shape)],
            [*weights(shape=np.array(reshaped)), *weights(w=random(*shape).astype(dtype))],
        )
        path = folder / "a.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        written, report = quantized(path, target=target)
        require(report.quantized == ("layer",), f"{report.quantized} in INT8")
        require(sqnr_db(answers(path, ROWS)["y"], answers(written, ROWS)["y"]) > 25, "another answer")

    return run


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hard swish": nn.Hardswish,
    "hard sigmoid": nn.Hardsigmoid,
    "hard tanh": nn.Hardtanh,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "mish": nn.Mish,
}


@kind("entropy against minmax", entry="1")
def entropy(random_state: Random) -> Iterator[Case]:
    for name, target, body in product(ACTIVATIONS, ("cpu-x86", "tensorrt"), ("plain", "gated", "residual")):
        yield Case(f"{name}, {body}, {target}", _entropy(name, body, target, random_state.randrange(1000)))


class _Net(nn.Module):
    def __init__(self, activation: nn.Module, body: str) -> None:
        super().__init__()
        self.body, self.activation = body, activation
        self.stem, self.middle, self.last = nn.Conv2d(4, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Hardsigmoid())

    def forward(self, x: Any) -> Any:
        x = self.activation(self.stem(x))
        made = self.activation(self.middle(x))
        if self.body == "gated":
            made = made * self.gate(x)
        return self.last(x + made if self.body == "residual" else made)


def _entropy(name: str, body: str, target: str, seed: int) -> Any:
    def run(folder: Path) -> None:
        torch.manual_seed(seed)
        path = ef.export_onnx(
            _Net(ACTIVATIONS[name](), body).eval(), folder / "a.onnx", batch=1, image_size=8, channels=4
        )
        ((output, expected),) = answers(path, ROWS).items()
        found = {}
        for method in ("minmax", "entropy"):
            ranges = ef.calibrate(path, ROWS, None, method=method)
            written, _ = ef.quantize(path, ranges, folder / "q.onnx", target=target, form="qdq")
            found[method] = sqnr_db(expected, answers(written, ROWS)[output])
        require(found["entropy"] > found["minmax"] - 3, f"{found['entropy']:.1f} dB, minmax {found['minmax']:.1f} dB")

    return run


@kind("answers that a cosine misjudges", entry="6")
def judged(random_state: Random) -> Iterator[Case]:
    ends: dict[str, tuple[list[Any], dict[str, Any], dict[str, int]]] = {
        "a score": ([helper.make_node("Sigmoid", ["g"], ["y"])], {"y": (1, "n")}, {}),
        "a number": ([helper.make_node("Identity", ["g"], ["y"])], {"y": (1, "n")}, {}),
        "near zero": ([helper.make_node("Sub", ["g", "h"], ["y"])], {"y": (1, "n")}, {}),
        "a mask": ([helper.make_node("Greater", ["g", "zero"], ["y"])], {"y": (1, "n")}, {"y": TensorProto.BOOL}),
        "a label": ([helper.make_node("ArgMax", ["g"], ["y"], axis=1)], {"y": (1, 1)}, {"y": TensorProto.INT64}),
        "sizes": ([helper.make_node("NonZero", ["g"], ["y"])], {"y": (2, "k")}, {"y": TensorProto.INT64}),
        "zeros": ([helper.make_node("Mul", ["g", "zero"], ["y"])], {"y": (1, "n")}, {}),
    }
    for (name, end), width, target in product(ends.items(), (1, 2, 10), ("cpu-x86", "openvino", "tensorrt")):
        yield Case(f"{name}, {width} wide, {target}", _judged(end, width, target, random_state.randrange(1000)))


def _judged(end: Any, width: int, target: str, seed: int) -> Any:
    def run(folder: Path) -> None:
        nodes, outputs, element_types = end
        outputs = {key: tuple(width if side == "n" else side for side in shape) for key, shape in outputs.items()}
        body = [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "v"], ["g"], name="gemm"),
            helper.make_node("Gemm", ["f", "u"], ["h"], name="other"),
        ]
        v = random(16, width, seed=seed)
        constants = weights(
            w=random(16, 4, 3, 3, seed=seed), v=v, u=v + 1e-6 * random(16, width, seed=1), zero=np.zeros(1, np.float32)
        )
        path = saved(folder / "a.onnx", [*body, *nodes], constants, outputs, types=element_types)
        _, report = quantized(path, target=target)
        require(len(report.errors) == 1, f"{len(report.errors)} outputs judged")

    return run
