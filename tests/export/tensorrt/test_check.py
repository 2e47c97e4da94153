"""An engine is held against its graph where it runs; without a GPU, onnxruntime answers for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from eightfold.errors import VerificationError
from eightfold.export.bundle.write import engine_artifact
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.built_engine import BuiltEngine
from eightfold.export.tensorrt.check import compared_with_graph
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.layers import EngineLayers
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.runtime.backends import BACKENDS
from tests.export.networks import graph, images, saved, small_net
from tests.export.tensorrt.stand_in import StandIn

pytest.importorskip("tensorrt_rtx")


EXTREMES = ["on zeros", "on ones", "on extremes", "on noise"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)


@pytest.fixture
def stand_in(network: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    backend = StandIn(network)
    monkeypatch.setitem(BACKENDS, backend.name, backend)
    return backend


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_was_found_is_in_the_record_and_the_bundle(
    tmp_path: Path, network: Path, stand_in: StandIn, precision: EnginePrecision
) -> None:
    engine = build_engine(network, tmp_path / "net.engine", precision=precision, inputs={"images": images(3)})
    *half, step = EngineRecord.load(sidecar_path(engine)).steps
    assert [each.name for each in half] == (["float16"] if precision == "fp16" else [])
    assert (step.name, step.tool.split()[0]) == ("build", "tensorrt_rtx")
    assert step.cosine is not None
    assert step.cosine > 0.9999
    assert [note.partition(":")[0] for note in step.notes] == ["on 3 images", *EXTREMES]
    assert engine_artifact(engine, id="net", inside="net.engine", variant="net").steps[-1] == step


def test_an_engine_that_answers_otherwise_is_not_kept(tmp_path: Path, network: Path, stand_in: StandIn) -> None:
    net = small_net()
    torch.nn.init.normal_(net.depthwise.weight, std=3)
    stand_in.graph = export_onnx(net, tmp_path / "other.onnx", batch=1, image_size=16)
    (tmp_path / "net.engine").write_bytes(b"old")
    with pytest.raises(VerificationError, match=r"build .*changed output 'logits': cosine .* tensor: .*depthwise/Conv"):
        build_engine(network, tmp_path / "net.engine")
    assert (tmp_path / "net.engine").read_bytes() == b"old"
    assert not sidecar_path(tmp_path / "net.engine").exists()


def test_an_engine_that_does_not_run_here_is_not_compared(tmp_path: Path, network: Path) -> None:
    engine = build_engine(network, tmp_path / "net.engine", target="rtx:sm75")
    assert [step.name for step in EngineRecord.load(sidecar_path(engine)).steps] == ["float16"]
    *_, step = engine_artifact(engine, id="net", inside="net.engine", variant="net").steps
    assert step.notes == ("not compared with its graph: it runs on its device alone",)


def test_a_board_without_onnxruntime_builds_all_the_same(
    tmp_path: Path, network: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("fp16.fp16", "tensorrt.check"):
        monkeypatch.setattr(f"eightfold.export.{part}.installed", lambda module: module != "onnxruntime")
    engine = build_engine(network, tmp_path / "net.engine")
    assert EngineRecord.load(sidecar_path(engine)).steps == ()


def test_an_engine_to_look_inside_is_not_compared(tmp_path: Path, network: Path, stand_in: StandIn) -> None:
    name = "/model/depthwise/Conv_output_0"
    engine = build_engine(network, tmp_path / "net.engine", options=BuildOptions(inner_outputs=(name,)))
    assert [step.name for step in EngineRecord.load(sidecar_path(engine)).steps] == ["float16"]
    assert not stand_in.opened


def built(engine: Path, record: EngineRecord) -> BuiltEngine:
    return BuiltEngine(engine.read_bytes(), record, EngineLayers(source="network", layers=()), frozenset({"Conv"}))


def test_it_runs_on_the_gpu_that_it_was_built_on(tmp_path: Path, network: Path, stand_in: StandIn) -> None:
    engine = build_engine(network, tmp_path / "net.engine", precision="fp32")
    record = EngineRecord.of(engine).model_copy(update={"options": BuildOptions(device=3)})
    compared_with_graph(built(engine, record), network, None)
    assert stand_in.devices == [0, 3]


def test_ranges_cost_what_they_cost(tmp_path: Path, network: Path, stand_in: StandIn) -> None:
    """An INT8 engine of a float graph is compared with that graph and not judged."""
    engine = build_engine(network, tmp_path / "net.engine", precision="fp32")
    record = EngineRecord.of(engine).model_copy(update={"precision": "int8"})
    net = small_net()
    torch.nn.init.normal_(net.depthwise.weight, std=3)
    stand_in.graph = export_onnx(net, tmp_path / "other.onnx", batch=1, image_size=16)
    step = compared_with_graph(built(engine, record), network, None)
    assert step is not None
    assert step.cosine is not None
    assert step.cosine < 0.99


def test_ranking_is_a_matter_of_rounding(tmp_path: Path, stand_in: StandIn) -> None:
    """What comes first among equals: values that are close, and places that are not."""
    paths = []
    for name, tilt in (("up", 1e-7), ("down", -1e-7)):
        scores = np.array([[1.0, 1.0 + tilt, 0.5]], np.float32)
        nodes = [
            helper.make_node("Add", ["images", "scores"], ["sum"]),
            helper.make_node("TopK", ["sum", "k"], ["best", "places"]),
            helper.make_node("Cast", ["places"], ["out"], to=TensorProto.FLOAT),
        ]
        weights = {"scores": scores * 100, "k": np.array([2])}
        paths.append(saved(graph(nodes, {"images": [1, 3]}, {"out": [1, 2]}, weights), tmp_path / f"{name}.onnx"))
    stand_in.graph = paths[1]
    inputs = {"images": np.zeros((1, 3), np.float32)}
    engine = build_engine(paths[0], tmp_path / "net.engine", precision="fp32", inputs=inputs)
    (step,) = EngineRecord.of(engine).steps
    assert step.cosine is not None
    assert step.cosine < 0.99
