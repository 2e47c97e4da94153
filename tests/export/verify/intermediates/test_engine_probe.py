"""Engines are built for real; what they answer comes from onnxruntime, since no GPU is needed for that."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.export.bundle.write import engine_artifact, onnx_artifact, write_bundle
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.compare.comparison import Comparison
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.engine_probe import EngineProbe, EngineSource
from eightfold.export.tensorrt.layers import EngineLayer, EngineLayers, layers_path
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.intermediates.probe import chunks
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from tests.export.networks import images, small_net
from tests.export.tensorrt.stand_in import StandIn

pytest.importorskip("tensorrt_rtx")


@dataclasses.dataclass(frozen=True)
class Desk:
    network: Path
    backend: StandIn
    folder: Path

    def build(self, precision: EnginePrecision = "fp16", **options: Any) -> Path:
        engine = self.folder / "engines" / "net.engine"
        engine.parent.mkdir(exist_ok=True)
        build_engine(self.network, engine, precision=precision, options=BuildOptions(**options))
        self.backend.opened.clear()
        return engine


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    network = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    backend = StandIn(network)
    monkeypatch.setitem(BACKENDS, backend.name, backend)
    return Desk(network, backend, tmp_path)


def layers_of(comparison: Comparison) -> list[str]:
    return [layer.tensor for layer in comparison.layers if layer.difference is not None]


@pytest.mark.parametrize(("precision", "error"), [("fp32", 0.0), ("fp16", 0.01)])
def test_an_engine_shows_the_layers_of_the_graph_it_was_built_from(
    desk: Desk, precision: EnginePrecision, error: float
) -> None:
    engine = desk.build(precision)
    comparison = compare_artifacts(desk.network, engine, inputs={"images": images()})
    convolutions = [node.output[0] for node in onnx.load(desk.network).graph.node if node.op_type == "Conv"]
    assert set(convolutions) <= set(layers_of(comparison))
    assert all(each.difference.max_rel_error <= error for each in comparison.layers if each.difference)
    assert (max(each.difference.max_abs_error for each in comparison.layers if each.difference) > 0) == (error > 0)
    assert comparison.first_beyond == ""
    (note,) = comparison.notes
    assert f"the layers of {engine} are those of another engine, built alike from net.onnx" in note
    assert note in comparison.describe()
    assert [bool(record.options.inner_outputs) for record in desk.backend.opened] == [False, True]


def test_it_is_built_once_for_each_chunk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare_artifacts(desk.build("fp32"), small_net(), onnx=desk.network)
    monkeypatch.setattr(
        "eightfold.export.tensorrt.engine_probe.chunks", lambda keys, sizes: chunks(keys, sizes, limit=2048)
    )
    parts = compare_artifacts(desk.build("fp32"), small_net(), onnx=desk.network)
    assert parts.layers == whole.layers
    _, *given = (record.options.inner_outputs for record in desk.backend.opened)
    assert len(given) > 2
    assert len({name for names in given for name in names}) == sum(map(len, given))
    assert f"those of {len(given)} other engines" in parts.notes[0]


def test_options_of_the_build_are_kept(desk: Desk) -> None:
    engine = desk.build(optimization_level=1, workspace_bytes=1 << 26)
    compare_artifacts(desk.network, engine)
    inner = desk.backend.opened[-1].options
    assert inner.model_copy(update={"inner_outputs": ()}) == BuildOptions(optimization_level=1, workspace_bytes=1 << 26)


def test_where_the_two_part_is_named(desk: Desk) -> None:
    other = small_net()
    torch.nn.init.normal_(other.depthwise.weight, std=3)
    comparison = compare_artifacts(other, desk.build(), onnx=desk.network)
    assert comparison.first_beyond == "depthwise"


def test_the_graph_is_found_beside_the_engine_or_named(desk: Desk) -> None:
    engine = desk.build()
    alone = compare_artifacts(small_net(), engine)
    assert alone.layers == ()
    assert r"net.engine is an engine, and the graph it was built from (SHA-256" in alone.no_layers
    assert "is not at hand: name it, --onnx" in alone.no_layers
    assert compare_artifacts(small_net(), engine, onnx=desk.network).layers
    export_onnx(small_net(seed=1), engine.parent / "another.onnx", batch=1, image_size=16)
    assert not compare_artifacts(small_net(), engine).layers
    (engine.parent / "broken.onnx").write_text("no graph")
    (engine.parent / "net.onnx").write_bytes(desk.network.read_bytes())
    assert compare_artifacts(small_net(), engine).layers
    with pytest.raises(UsageError, match=r"net\.engine was not built from .*another\.onnx; allowed: the graph whose"):
        compare_artifacts(small_net(), engine, onnx=engine.parent / "another.onnx")


def test_another_builder_than_its_own_is_not_asked(desk: Desk) -> None:
    engine = desk.build()
    record = EngineRecord.load(sidecar_path(engine))
    record.model_copy(update={"builder_version": "1.2.3"}).save(sidecar_path(engine))
    comparison = compare_artifacts(desk.network, engine)
    assert "outputs only: " in comparison.describe()
    assert "cannot build it again as 1.2.3 did" in comparison.no_layers


def test_types_that_images_decided_are_the_same_again(desk: Desk) -> None:
    """Values beyond what 16 bits hold: which layers these are is not to be seen without the images."""
    engine = desk.folder / "net.engine"
    loud = {"images": 1e5 * images()}
    build_engine(desk.network, engine, inputs=loud)
    record = EngineRecord.load(sidecar_path(engine))
    assert record.float_nodes
    probe = EngineProbe(EngineSource(record, desk.network))
    with probe.source.typed() as typed:
        assert typed.sha256 == record.parsed_sha256
    probe.watch({"images": images()}, lambda place, array: None)
    again = desk.backend.opened[-1]
    assert again.options.inner_outputs
    assert again.parsed_sha256 == record.parsed_sha256


def test_what_the_inspector_told_stands_beside(desk: Desk) -> None:
    engine = desk.build()
    first = next(node for node in onnx.load(desk.network).graph.node if node.op_type == "Conv")
    EngineLayers(
        source="inspector",
        layers=(EngineLayer(name="stem + relu", precision="Half", nodes=(first.name, "relu")),),
    ).save(layers_path(engine))
    comparison = compare_artifacts(desk.network, engine)
    assert {layer.tensor: layer.other_maker for layer in comparison.layers if layer.other_maker} == {
        first.output[0]: "stem + relu (Half)"
    }
    text = comparison.describe()
    assert "in the second engine" in text
    assert "stem + relu (Half)" in text
    assert "in the first engine" in compare_artifacts(engine, desk.network).describe()


def test_an_engine_of_a_bundle_finds_its_graph_there(desk: Desk) -> None:
    """Where it is stored in another way: its weights are shared with another batch."""
    preprocess = Preprocess(height=16, width=16)
    engine = desk.build()
    other = export_onnx(small_net(), desk.folder / "net2.onnx", batch=2, image_size=16)
    files = {"onnx/b1.onnx": desk.network, "onnx/b2.onnx": other, "net.engine": engine}
    bundle = write_bundle(
        desk.folder / "bundle",
        name="net",
        task=Task(kind="classify", decode="classify"),
        preprocess=preprocess,
        artifacts=[
            onnx_artifact(desk.network, id="b1", inside="onnx/b1.onnx", variant="net"),
            onnx_artifact(other, id="b2", inside="onnx/b2.onnx", variant="net"),
            engine_artifact(engine, id="engine", inside="net.engine", variant="net"),
        ],
        files=files | {"net.engine.json": sidecar_path(engine)},
    )
    assert Bundle.open(bundle).artifact("b1").files
    comparison = compare_artifacts(small_net(), f"{bundle}:engine")
    assert "depthwise" in layers_of(comparison)
    assert "built alike from b1.onnx" in comparison.notes[0]
    assert comparison.notes[0].endswith("which gave the outputs")


def test_another_float16_form_is_told(desk: Desk) -> None:
    """One that another eightfold made."""
    engine = desk.build()
    record = EngineRecord.load(sidecar_path(engine))
    record.model_copy(update={"parsed_sha256": "0" * 64}).save(sidecar_path(engine))
    assert compare_artifacts(desk.network, engine).notes[0].endswith("is not the one it was built from")
