"""The table of targets: every entry has a source that can be looked up, every string finds its entry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from eightfold.calib.calibrate import calibrate
from eightfold.errors import UnknownNameError, UsageError
from eightfold.export import targets
from eightfold.export.int8.quantize import quantize
from eightfold.export.opset.opsets import newest_opset
from eightfold.export.target_names import parse_target
from eightfold.export.targets import TARGETS, target_named


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_entry_has_a_source(name: str) -> None:
    assert "https://" in TARGETS[name].source
    assert TARGETS[name].name == name


@pytest.mark.parametrize(
    ("asked", "entry"),
    [
        ("tensorrt:8.0.1", "tensorrt:8"),
        ("tensorrt:8.6", "tensorrt:8"),
        ("tensorrt:9.3", "tensorrt:8"),
        ("tensorrt:10", "tensorrt:10"),
        ("tensorrt:10.16.2", "tensorrt:10"),
        ("tensorrt:11.4", "tensorrt:11"),
        ("rtx:sm120", "tensorrt:11"),
        ("tensorrt-dla", "tensorrt-dla"),
        ("tensorrt-dla:10.7", "tensorrt-dla"),
        ("openvino", "openvino"),
    ],
)
def test_a_version_follows_the_newest_entry_before_it(asked: str, entry: str) -> None:
    assert target_named(asked) is TARGETS[entry]


@pytest.mark.parametrize("asked", ["cpu", "cpu-x86:2"])
def test_unknown_targets_are_refused(asked: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown target '{asked}'; allowed: cpu-arm"):
        target_named(asked)


@pytest.mark.parametrize("reads", [target_named, newest_opset, parse_target])
@pytest.mark.parametrize("family", ["tensorrt", "tensorrt-dla"])
@pytest.mark.parametrize("version", ["7.2", "12", "99"])
def test_a_tensorrt_that_does_not_exist_is_refused_everywhere(
    reads: Callable[[str], Any], family: str, version: str
) -> None:
    words = rf"^unknown target '{family}:{version}'; allowed: TensorRT 8 to 11, as in .*; name the version"
    with pytest.raises(UnknownNameError, match=words):
        reads(f"{family}:{version}")


@pytest.mark.parametrize("version", ["x", "-1", "10x", "1000000000000"])
def test_what_is_no_version_is_refused(version: str) -> None:
    for reads in (target_named, newest_opset):
        with pytest.raises(UnknownNameError, match="allowed: TensorRT 8 to 11"):
            reads(f"tensorrt:{version}")


@pytest.mark.parametrize(
    ("version", "entry"), [("8.6.1", "tensorrt:8"), ("10.3.0", "tensorrt:10"), ("", "tensorrt:10")]
)
def test_tensorrt_alone_is_the_one_installed(version: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "installed_tensorrt", lambda: version)
    assert target_named("tensorrt") is TARGETS[entry]


def test_an_accelerator_without_explicit_quantization_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"tensorrt-dla:8.5 reads no Q/DQ graph.*build the float graph with the ranges"
    ):
        target_named("tensorrt-dla:8.5")


def test_rules_of_your_own_are_taken_as_they_are() -> None:
    own = dataclasses.replace(TARGETS["cpu-x86"], name="mine", per_channel=False)
    assert target_named(own) is own


@pytest.mark.parametrize("target", ["tensorrt:8.2", "tensorrt:10.3", "tensorrt:11", "tensorrt-dla"])
def test_what_the_parsers_of_tensorrt_ask_for(
    residual_net: Callable[..., Path], rows: Any, tmp_path: Path, target: str
) -> None:
    """Parsers 8.0 to 8.5 want all three inputs of a Q or DQ node; none takes a zero point that is not 0."""
    path = residual_net()
    output, _ = quantize(path, calibrate(path, rows, None), tmp_path / "int8.onnx", target=target)
    graph = onnx.load(str(output)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {len(node.input) for node in pairs} == {3}
    assert all(values[node.input[2]].dtype == "int8" and not values[node.input[2]].any() for node in pairs)
    stored = {str(values[node.input[0]].dtype) for node in pairs if node.input[0] in values}
    assert stored == ({"float32"} if target == "tensorrt:8.2" else {"int8"})
    scales = {values[node.input[1]].ndim for node in pairs if node.input[0] in values}
    assert scales == ({0} if target == "tensorrt-dla" else {1})
