from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eightfold.errors import EightfoldError, UnknownNameError, UsageError
from eightfold.export.opset.opsets import newest_opset
from eightfold.export.target_names import RTX_CAPABILITIES, EngineTarget, parse_target
from eightfold.export.targets import target_named


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rtx:sm86", EngineTarget("rtx", compute_capabilities=((8, 6),))),
        ("rtx:sm120,sm86,sm86", EngineTarget("rtx", compute_capabilities=((12, 0), (8, 6)))),
        ("tensorrt", EngineTarget("tensorrt")),
        ("tensorrt:11", EngineTarget("tensorrt", version=(11,))),
        ("tensorrt:10.13", EngineTarget("tensorrt", version=(10, 13))),
        ("tensorrt:10.3.0.26", EngineTarget("tensorrt", version=(10, 3))),
        ("tensorrt-dla", EngineTarget("tensorrt", dla=True)),
        ("tensorrt-dla:8.5", EngineTarget("tensorrt", version=(8, 5), dla=True)),
    ],
)
def test_names(name: str, expected: EngineTarget) -> None:
    assert parse_target(name) == EngineTarget(**{**vars(expected), "name": name})


@pytest.mark.parametrize("name", ["", "rtx", "rtx:86", "rtx:sm8", "rtx:sm86,", "RTX:sm86", "cpu-x86"])
def test_what_is_no_target(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown engine target"):
        parse_target(name)


@pytest.mark.parametrize("name", ["tensorrt:", "tensorrt:10.", "tensorrt-dla:x", "tensorrt:10.3rc"])
def test_what_is_no_version(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown target '{name}'; allowed: TensorRT 8 to 11"):
        parse_target(name)


# The INT8 form and the opset of a graph, and the build of an engine, follow one rule.
@pytest.mark.parametrize("reads", [target_named, newest_opset, parse_target])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rtx:sm999", "unknown compute capability 'SM999'; allowed: .*SM89; did you mean 'SM89'"),
        ("rtx:sm86,sm91", "unknown compute capability 'SM91'"),
        ("rtx:sm87", "names the GPU of a Jetson Orin.*the target of its graphs is tensorrt:VERSION"),
        ("rtx", "unknown engine target 'rtx'"),
        ("rtx:86", "unknown engine target 'rtx:86'.*did you mean 'rtx:sm86'"),
    ],
)
def test_no_graph_is_made_where_no_engine_is_built(reads: Callable[[str], Any], name: str, words: str) -> None:
    with pytest.raises(EightfoldError, match=words):
        reads(name)


def test_the_gpus_are_those_of_the_builder() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra [rtx] is not installed")
    known = {name for name in dir(trt.ComputeCapability) if name.startswith("SM")}
    assert {f"SM{major}{minor}" for major, minor in RTX_CAPABILITIES} == known


@pytest.mark.parametrize(("name", "board"), [("rtx:sm87", "Orin"), ("rtx:sm86,sm72", "Xavier"), ("rtx:sm53", "Nano")])
def test_the_gpu_of_a_board_leads_to_the_board(name: str, board: str) -> None:
    with pytest.raises(UsageError, match=rf"Jetson {board}.*built on the board itself.*eightfold-build.*jetson\.md"):
        parse_target(name)
