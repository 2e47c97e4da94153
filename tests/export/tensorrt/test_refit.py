"""Putting weights back, with every TensorRT from 8.2 to 11.1 as it is recorded; the real thing is in test_gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from eightfold.errors import BackendError, BuildError
from eightfold.export.bundle.write import engine_artifact
from eightfold.export.tensorrt.generation import version_numbers
from eightfold.export.tensorrt.parse import sha256_of_graph
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.tensorrt.refit import refit_engine
from eightfold.files import sha256_of_file
from eightfold.onnx_graph.onnx_files import load_onnx
from tests.export.tensorrt.fake_tensorrt import VERSIONS
from tests.export.tensorrt.test_generations import Board, board, network

__all__ = ["board", "network"]  # fixtures
FROM_10 = [version for version in VERSIONS if version_numbers(version) >= (10, 0)]


@pytest.mark.parametrize("version", FROM_10)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_weights_come_back_from_the_same_graph(board: Board, version: str, precision: Any) -> None:
    stripped, made = board.build(version, precision, gpu=True, strip_weights=True)
    assert "STRIP_PLAN" in stripped.flags
    complete = refit_engine(board.folder / "net.engine", board.network, board.folder / "complete.engine")
    assert complete.read_bytes() == b"complete engine"
    record = EngineRecord.of(complete)  # whose digest is that of the new file
    assert record.engine_bytes == len(b"complete engine")
    assert set(record.flags) == set(stripped.flags) - {"STRIP_PLAN"}
    assert record.parsed_sha256 == stripped.parsed_sha256
    # The weights are those of the graph that was parsed: a float16 one where types come from the graph.
    assert made["refitted from"] == made["onnx"]
    assert [(call, flag.name) for call, flag in made["serialization"].calls] == [("clear_flag", "EXCLUDE_WEIGHTS")]


@pytest.mark.parametrize("version", FROM_10)
def test_a_refittable_engine_takes_other_weights_and_stays_so_where_it_can(board: Board, version: str) -> None:
    board.build(version, gpu=True, strip_weights=True, refittable=True)
    other = other_weights(board.network, board.folder / "other.onnx")
    before = EngineRecord.of(board.folder / "net.engine")
    after = EngineRecord.of(refit_engine(board.folder / "net.engine", other, board.folder / "net.engine"))
    assert ("REFIT" in after.flags) == (version_numbers(version) >= (10, 16))
    assert after.onnx_sha256 == sha256_of_file(other)
    assert after.graph_sha256 == sha256_of_graph(load_onnx(other)) != before.graph_sha256
    assert after.parsed_sha256 != before.parsed_sha256


@pytest.mark.parametrize("kept", ["float_layers", "float_nodes"])
def test_what_stayed_in_float32_does_so_again(board: Board, kept: str) -> None:
    """By wish, or because images showed that it must: otherwise the weights would have other types."""
    first = next(node.name for node in load_onnx(board.network).graph.node if node.op_type == "Conv")
    record, made = board.build("10.13", "fp16", gpu=True, strip_weights=True, float_layers=(first,))
    options = record.options.model_copy(update={"float_layers": ()})
    changes = {"float_layers": {}, "float_nodes": {"options": options, "float_nodes": (first,)}}[kept]
    record.model_copy(update=changes).save(sidecar_path(board.folder / "net.engine"))
    refit_engine(board.folder / "net.engine", board.network, board.folder / "complete.engine")
    assert made["refitted from"] == made["onnx"]


def test_an_engine_with_host_code_is_loaded_by_who_built_it(board: Board) -> None:
    board.build("10.3", gpu=True, strip_weights=True, version_compatible=True)
    refit_engine(board.folder / "net.engine", board.network, board.folder / "complete.engine")


def test_a_graph_that_lacks_weights(board: Board) -> None:
    _, made = board.build("10.3", gpu=True, refittable=True)
    made["lacking"] = [f"w{number}" for number in range(9)]
    with pytest.raises(BuildError, match=r"the graph lacks weights of the engine: w0, w1, w2, w3, w4$"):
        refit_engine(board.folder / "net.engine", board.network, board.folder / "complete.engine")
    assert not (board.folder / "complete.engine").exists()


def test_other_weights_do_not_go_into_an_engine_that_was_only_stripped(board: Board) -> None:
    board.build("10.3", gpu=True, strip_weights=True)
    other = other_weights(board.network, board.folder / "other.onnx")
    with pytest.raises(BuildError, match=r"other\.onnx are not those that the engine was built with; .* --refit"):
        refit_engine(board.folder / "net.engine", other, board.folder / "complete.engine")
    assert not (board.folder / "complete.engine").exists()


def test_what_cannot_be_refitted(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = board.folder / "net.engine"
    board.build("10.3", gpu=True)
    with pytest.raises(BuildError, match="has fixed weights; allowed: engines built with --refit or --strip-weights"):
        refit_engine(engine, board.network, engine)
    _, made = board.build("10.3", gpu=True, refittable=True)
    made["misfit"] = True
    with pytest.raises(BuildError, match="the weights do not fit the engine"):
        refit_engine(engine, board.network, engine)
    board.build("8.6", gpu=True, refittable=True)
    with pytest.raises(BuildError, match=r"TensorRT 8\.6\.0 cannot refit from ONNX files; allowed: TensorRT 10\.0"):
        refit_engine(engine, board.network, engine)
    board.build("10.3", refittable=True)
    monkeypatch.setattr("eightfold.export.tensorrt.refit.cuda_absent", lambda: "this machine has no NVIDIA driver")
    with pytest.raises(BackendError, match="takes a GPU, and this machine has no NVIDIA driver; refit it where"):
        refit_engine(engine, board.network, engine)


def test_no_bundle_takes_an_engine_without_weights(board: Board) -> None:
    board.build("10.3", gpu=True, strip_weights=True)
    with pytest.raises(Exception, match="was built without its weights; put them back first: eightfold refit"):
        engine_artifact(board.folder / "net.engine", id="e", inside="engines/e.engine", variant="pruned")


def other_weights(source: Path, target: Path) -> Path:
    model = load_onnx(source)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = np.array(numpy_helper.to_array(tensor)) + 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, target)
    return target
