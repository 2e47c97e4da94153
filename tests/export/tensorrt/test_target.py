from __future__ import annotations

import pytest

from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.tensorrt.target import EngineTarget, parse_target


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rtx:sm86", EngineTarget("rtx", compute_capabilities=((8, 6),))),
        ("rtx:sm120,sm86,sm86", EngineTarget("rtx", compute_capabilities=((12, 0), (8, 6)))),
        ("tensorrt", EngineTarget("tensorrt")),
        ("tensorrt:11", EngineTarget("tensorrt", version=(11,))),
        ("tensorrt:10.13", EngineTarget("tensorrt", version=(10, 13))),
        ("tensorrt-dla", EngineTarget("tensorrt", dla=True)),
        ("tensorrt-dla:8.5", EngineTarget("tensorrt", version=(8, 5), dla=True)),
    ],
)
def test_names(name: str, expected: EngineTarget) -> None:
    assert parse_target(name) == EngineTarget(**{**vars(expected), "name": name})


@pytest.mark.parametrize("name", ["", "rtx", "rtx:86", "rtx:sm8", "rtx:sm86,", "tensorrt:", "tensorrt:10.3.0"])
def test_what_is_no_target(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown engine target"):
        parse_target(name)


@pytest.mark.parametrize(("name", "board"), [("rtx:sm87", "Orin"), ("rtx:sm86,sm72", "Xavier"), ("rtx:sm53", "Nano")])
def test_the_gpu_of_a_board_leads_to_the_board(name: str, board: str) -> None:
    with pytest.raises(UsageError, match=rf"Jetson {board}.*built on the board itself.*eightfold-build.*jetson\.md"):
        parse_target(name)
