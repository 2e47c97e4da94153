"""Every option of a build reaches the builder."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from eightfold.calib.calibrate import calibrate
from eightfold.cli.app import main
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from tests.export.networks import graph, images, saved
from tests.export.tensorrt.test_generations import Board, board, network

__all__ = ["board", "network"]  # fixtures


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*words: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["eightfold", *map(str, words)])
        return main()

    return run


def test_options_of_a_build(board: Board, call: Any, tmp_path: Path) -> None:
    made = board.install("8.6")
    engine = tmp_path / "net.engine"
    words = "--workspace-mib 64 --optimization-level 4 --tactic-source CUDNN --tactic-source CUBLAS --dla 1"
    words += " --no-gpu-fallback --version-compatible --hardware-compatible --refit --float-layer conv"
    times = tmp_path / "times.cache"
    assert (
        call("build", board.network, "-o", engine, "--target", "tensorrt", *words.split(), "--timing-cache", times) == 0
    )
    calls = made["config"].calls
    assert [call[-1] for call in calls if call[0] == "set_memory_pool_limit"] == [64 << 20]
    config = made["config"]
    assert (config.builder_optimization_level, config.DLA_core) == (4, 1)
    assert sum(call[-1].bit_count() for call in calls if call[0] == "set_tactic_sources") == 2
    assert set(EngineRecord.load(sidecar_path(engine)).flags) == {
        "AMPERE_PLUS", "EXPLICIT_BATCH", "FP16", "OBEY_PRECISION_CONSTRAINTS", "REFIT", "VERSION_COMPATIBLE",
    }  # fmt: skip
    assert ("precision", "float32") in made["layer"].calls
    assert (tmp_path / "times.tensorrt-8.6.0-Orin-Nano.cache").is_file()


def test_int8_from_ranges(board: Board, call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = board.install("10.3")
    ranges = calibrate(board.network, iter([images()[0]]), None, method="minmax", batch=1)
    file = ranges.save(tmp_path / "ranges.json")
    name = made["tensor"].name = next(iter(ranges.tensors))
    common = ("build", board.network, "-o", tmp_path / "net.engine", "--target", "tensorrt")
    assert call(*common, "--precision", "int8", "--ranges", file) == 0
    limit = ranges.tensors[name].threshold
    assert ("set_dynamic_range", -limit, limit) in made["tensor"].calls
    assert call(*common, "--ranges", file) == 2
    assert "ranges for an engine in fp16; allowed: ranges with precision int8" in capsys.readouterr().err
    made["tensor"].name = "unknown"
    assert call(*common, "--precision", "int8", "--ranges", file) == 1
    assert "ranges is of a tensor of this graph" in capsys.readouterr().err
    assert call(*common, "--precision", "int8", "--calibration-cache", tmp_path / "none") == 2
    assert "allowed: a TensorRT calibration cache" in capsys.readouterr().err


def test_a_stripped_engine_gets_its_weights_back(board: Board, call: Any, tmp_path: Path) -> None:
    made = board.install("10.3")
    made["gpu"] = True
    engine = tmp_path / "net.engine"
    common = ("build", board.network, "-o", engine, "--target", "tensorrt")
    assert call(*common, "--strip-weights") == 0
    assert call("refit", engine, board.network, "-o", engine) == 0
    assert engine.read_bytes() == b"complete engine"


def test_openvino_is_a_target(network: Path, call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    assert call("build", network, "--target", "openvino", "-o", tmp_path / "net.xml") == 0
    assert (tmp_path / "net.bin").is_file()
    assert "build for OpenVINO: cosine 1.000000 to the graph\n  on random values (no images given): relative error" in (
        capsys.readouterr().out
    )
    from eightfold.runtime.backends import open_session

    answers = []
    for path, backend in ((network, "onnxruntime"), (tmp_path / "net.xml", "openvino")):
        slot = open_session(path, backend).new_slot()
        slot.run_on({"images": images()})
        answers.append(slot.outputs["logits"].copy())
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5, atol=1e-6)
    for option, name in ((("--precision", "fp16"), "precision"), (("--refit",), "refittable")):
        assert call("build", network, "--target", "openvino", "-o", tmp_path / "net.xml", *option) == 2
        assert f"options of an engine build with --target openvino ({name})" in capsys.readouterr().err


def test_float16_that_is_far_off_says_what_to_do(call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Values too small for it become zero, which only images show to matter."""
    pytest.importorskip("tensorrt_rtx")
    nodes = [helper.make_node("Mul", ["images", "small"], ["tiny"]), helper.make_node("Relu", ["tiny"], ["out"])]
    model = graph(nodes, {"images": [1, 4]}, {"out": [1, 4]}, {"small": np.array(1e-12, np.float32)})
    file = saved(model, tmp_path / "net.onnx")
    assert call("build", file, "-o", tmp_path / "net.engine") == 0
    said = capsys.readouterr().out
    assert "float16: " in said
    assert "far from the graph: --images of its use show what has to stay in float32" in said


def test_what_was_built_is_told(
    board: Board, network: Path, call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board.install("10.3")
    engine = tmp_path / "net.engine"
    assert call("build", network, "-o", engine, "--target", "tensorrt:10.3") == 0
    capsys.readouterr()
    assert call("inspect", engine) == 0
    assert capsys.readouterr().out.startswith("fp16 engine for tensorrt:10.3, ")
    sidecar_path(engine).unlink()
    assert call("inspect", engine) == 1
    assert "no record lies beside" in capsys.readouterr().err
    pytest.importorskip("openvino")
    assert call("build", network, "-o", tmp_path / "net.xml", "--target", "openvino") == 0
    capsys.readouterr()
    assert call("inspect", tmp_path / "net.xml") == 0
    assert re.match(r"fp32 graph in the form of OpenVINO [\d.]+; layers: \d+ in fp32\n", capsys.readouterr().out)
