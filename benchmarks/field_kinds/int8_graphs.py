"""Graphs that `quantize` broke: clashing names, bodies of If, Loop and Scan, weights that layers share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

from graphs import ROWS, answers, quantized, random, saved, sqnr_db, weights
from onnx import TensorProto, helper

from field_kinds import Case, kind, require

onnx_node = Any
TARGETS = ("cpu-x86", "cpu-arm", "openvino", "tensorrt", "tensorrt-dla")
ACTIVATIONS = ("Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "LeakyRelu", "Elu", "Identity")
SUFFIXES = ("scale", "zero", "quantized", "dequantized", "raw", "padded_quantized", "0_scale", "0_quantized", "weight")
LEAST_DB = 15.0


def conv(source: str, weight: str, output: str) -> onnx_node:
    return helper.make_node("Conv", [source, weight], [output], name=output, pads=[1] * 4, kernel_shape=[3, 3])


def compared(path: Path, *, least: int, **options: Any) -> Path:
    """The INT8 form, after a check of its answers against onnxruntime's of the float file."""
    int8, report = quantized(path, **options)
    require(len(report.quantized) >= least, f"{len(report.quantized)} layers in INT8, not {least}")
    expected, found = answers(path, ROWS), answers(int8, ROWS)
    worst = min(sqnr_db(expected[name], found[name]) for name in expected)
    require(worst > LEAST_DB, f"SQNR {worst:.1f} dB")
    return int8


@kind("names that exist already", entry="8")
def names(random_state: Random) -> Iterator[Case]:
    for subject, suffix, target in product(("x", "c1", "w1", "c2"), SUFFIXES, TARGETS):
        activation = random_state.choice(ACTIVATIONS)
        taken = f"{subject}_{suffix}"
        yield Case(f"{taken}, {activation}, {target}", _named(taken, activation, target))


def _named(taken: str, activation: str, target: str) -> Any:
    def run(folder: Path) -> None:
        nodes = [
            conv("x", "w1", "c1"),
            helper.make_node("Mul", ["c1", f"{taken}_1"], [taken]),
            helper.make_node(activation, [taken], ["a1"]),
            conv("a1", "w2", "c2"),
        ]
        constants = weights(**{f"{taken}_1": random(1, 16, 1, 1)}, w1=random(16, 4, 3, 3), w2=random(16, 16, 3, 3))
        compared(saved(folder / "a.onnx", nodes, constants, {"c2": (1, 16, 8, 8)}), least=2, target=target)

    return run


@kind("constants of inner graphs", entry="7")
def bodies(random_state: Random) -> Iterator[Case]:
    for operator, shared, form, target in product(("If", "Loop", "Scan"), (True, False), ("qdq", "qoperator"), TARGETS):
        if form == "qdq" or target.startswith("cpu"):
            activation = random_state.choice(ACTIVATIONS)
            name = f"{operator}, {'shared' if shared else 'own'} constant, {activation}, {form}, {target}"
            yield Case(name, _with_body(operator, shared, activation, form, target))


def _with_body(operator: str, shared: bool, activation: str, form: str, target: str) -> Any:
    def run(folder: Path) -> None:
        nodes = [
            conv("x", "w1", "c1"),
            helper.make_node(activation, ["c1"], ["a1"]),
            _body(operator),
            helper.make_node("Add", ["made", "gain"], ["more"])
            if shared
            else helper.make_node("Relu", ["made"], ["more"]),
            conv("more", "w2", "c2"),
        ]
        constants = weights(
            w1=random(16, 4, 3, 3), w2=random(16, 16, 3, 3), gain=random(16, 1, 1), flag=True, trips=[2]
        )
        used = [each for each in constants if each.name not in ("flag", "trips") or operator != "Scan"]
        path = saved(folder / "a.onnx", nodes, used, {"c2": (1, 16, 8, 8)})
        compared(path, least=2, target=target, form=form)

    return run


def _body(operator: str) -> onnx_node:
    info = helper.make_tensor_value_info
    grown = info("grown", TensorProto.FLOAT, None)
    if operator == "Scan":
        given = [info("piece", TensorProto.FLOAT, None)]
        body = helper.make_graph([helper.make_node("Add", ["piece", "gain"], ["grown"])], "body", given, [grown])
        return helper.make_node("Scan", ["a1"], ["made"], body=body, num_scan_inputs=1)
    if operator == "Loop":
        given = [info("turn", TensorProto.INT64, []), info("more_", TensorProto.BOOL, [])]
        steps = [
            helper.make_node("Identity", ["more_"], ["still"]),
            helper.make_node("Add", ["state", "gain"], ["grown"]),
        ]
        outputs = [info("still", TensorProto.BOOL, []), grown]
        body = helper.make_graph(steps, "body", [*given, info("state", TensorProto.FLOAT, None)], outputs)
        return helper.make_node("Loop", ["trips", "flag", "a1"], ["made"], body=body)
    then = helper.make_graph([helper.make_node("Add", ["a1", "gain"], ["grown"])], "then", [], [grown])
    other = info("other", TensorProto.FLOAT, None)
    els = helper.make_graph([helper.make_node("Sub", ["a1", "gain"], ["other"])], "else", [], [other])
    return helper.make_node("If", ["flag"], ["made"], then_branch=then, else_branch=els)


@kind("weights that layers share", entry="18")
def shared_weights(random_state: Random) -> Iterator[Case]:
    for uses, identity, operator, target in product((2, 5), (True, False), ("Conv", "MatMul", "Gemm"), TARGETS[:4]):
        activation = random_state.choice(ACTIVATIONS)
        name = f"{operator} used {uses} times, {'behind Identity, ' if identity else ''}{activation}, {target}"
        yield Case(name, _shared(uses, identity, operator, activation, target))


def _shared(uses: int, identity: bool, operator: str, activation: str, target: str) -> Any:
    def run(folder: Path) -> None:
        nodes, source, side = [], "x", 64
        shape = (1, 4, side) if operator == "MatMul" else (4, side) if operator == "Gemm" else (1, side, 2, 2)
        nodes.append(helper.make_node("Reshape", ["x", "shape"], ["start"]))
        source = "start"
        for use in range(uses):
            weight = "w"
            if identity and use:
                nodes.append(helper.make_node("Identity", ["w"], [f"w{use}"]))
                weight = f"w{use}"
            nodes.append(helper.make_node(operator, [source, weight], [f"y{use}"]))
            source = f"y{use}"
            if use < uses - 1:
                nodes.append(helper.make_node(activation, [source], [f"a{use}"]))
                source = f"a{use}"
        kernel = (side, side, 1, 1) if operator == "Conv" else (side, side)
        constants = weights(w=random(*kernel) / 4, shape=list(shape))
        path = saved(folder / "a.onnx", nodes, constants, {source: shape})
        int8 = compared(path, least=uses, target=target)
        if not target.startswith("tensorrt"):
            require(
                int8.stat().st_size < path.stat().st_size, f"{int8.stat().st_size} bytes, {path.stat().st_size} before"
            )

    return run
