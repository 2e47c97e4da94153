from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from eightfold.errors import BuildError, UnknownNameError, UsageError
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.layers import EngineLayers, layers_path
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.extras import require
from eightfold.files import sha256_of_file
from eightfold.runtime.backends.cuda_memory import cuda_driver_absent
from eightfold.runtime.backends.engine_fit import meets
from tests.export.networks import graph, images, saved, small_net


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=16)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_is_built_without_a_gpu(tmp_path: Path, network: Path, precision: EnginePrecision) -> None:
    engine = build_engine(network, tmp_path / "net.engine", precision=precision)
    record = EngineRecord.load(sidecar_path(engine))
    assert record.engine_sha256 == sha256_of_file(engine)
    assert record.onnx_sha256 == sha256_of_file(network)
    assert record.requires == {"tensorrt_rtx": record.builder_version, "compute_capability": "8.6"}
    assert record.flags == ("STRONGLY_TYPED",)
    assert any("Engine generation completed" in text for text in record.messages)
    assert str(tmp_path) not in record.to_json()


def test_float16_is_checked_on_real_inputs(tmp_path: Path, network: Path) -> None:
    engine = build_engine(network, tmp_path / "net.engine", inputs={"images": images()})
    (step,) = EngineRecord.load(sidecar_path(engine)).steps
    assert step.name == "float16"
    assert step.cosine is not None
    assert step.cosine > 0.9999


def test_int8_is_built_from_quantized_pairs(tmp_path: Path) -> None:
    nodes = []
    for name, source in (("x", "images"), ("w", "weight")):
        nodes.append(helper.make_node("QuantizeLinear", [source, f"{name}_scale", "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_scale", "zero"], [f"{name}_d"]))
    nodes.append(helper.make_node("Conv", ["x_d", "w_d"], ["out"], kernel_shape=[1, 1]))
    weights = {
        "weight": np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32),
        "x_scale": np.float32(0.01),
        "w_scale": np.float32(0.02),
        "zero": np.int8(0),
    }
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    model = graph(nodes, {"images": [1, 8, 4, 4]}, {"out": [1, 8, 4, 4]}, arrays)
    file = saved(model, tmp_path / "q.onnx")
    engine = build_engine(file, tmp_path / "q.engine", precision="int8")
    assert EngineRecord.load(sidecar_path(engine)).precision == "int8"
    layers = EngineLayers.load(layers_path(engine)).layers
    assert {layer.precision for layer in layers if layer.kind == "convolution"} == {"half"}
    assert {layer.precision for layer in layers if layer.kind == "quantize"} == {"int8"}


def test_int8_wants_quantized_pairs(tmp_path: Path, network: Path) -> None:
    with pytest.raises(UsageError, match=r"has no QuantizeLinear node; allowed: .* quantize it first"):
        build_engine(network, tmp_path / "net.engine", precision="int8")


def test_an_operator_the_parser_refuses_is_named_and_the_old_engine_stays(tmp_path: Path) -> None:
    model = graph([helper.make_node("Det", ["images"], ["out"], name="volume")], {"images": [3, 3]}, {"out": []})
    file = saved(model, tmp_path / "det.onnx")
    (tmp_path / "net.engine").write_bytes(b"old")
    with pytest.raises(BuildError, match=r"TensorRT's parser refuses the graph at node 'volume' \(Det\)"):
        build_engine(file, tmp_path / "net.engine", precision="fp32")
    assert (tmp_path / "net.engine").read_bytes() == b"old"


def test_unknown_names_are_refused_before_any_work(tmp_path: Path, network: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'fp8'"):
        build_engine(network, tmp_path / "x", precision="fp8")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(UnknownNameError, match="unknown engine target 'rtx'"):
        build_engine(network, tmp_path / "x", target="rtx")
    # Before parsing: the parser would refuse this graph.
    model = graph([helper.make_node("Det", ["images"], ["out"])], {"images": [3, 3]}, {"out": []})
    with pytest.raises(UnknownNameError, match="unknown compute capability 'SM12'"):
        build_engine(saved(model, tmp_path / "det.onnx"), tmp_path / "x", target="rtx:sm12", precision="fp32")


def _codes(zero: Any) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"], name="codes"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["out"]),
    ]
    weights = {"scale": np.array(0.1, np.float32), "zero": np.array(zero)}
    return graph(nodes, {"images": [1, 4]}, {"out": [1, 4]}, weights)


@pytest.mark.parametrize("zero", [np.uint8(0), np.uint8(128), np.int8(3)])
def test_codes_made_for_cpus_are_refused_in_one_line(tmp_path: Path, zero: Any) -> None:
    file = saved(_codes(zero), tmp_path / "cpu.onnx")
    with pytest.raises(
        BuildError, match=r"'codes' of .* unsigned or shifted codes, made for CPUs; allowed: .* --target rtx:sm86"
    ):
        build_engine(file, tmp_path / "x.engine", precision="int8")
    assert not (tmp_path / "x.engine").exists()


def test_operators_made_for_cpus_are_refused_in_one_line(tmp_path: Path) -> None:
    model = _codes(np.int8(0))
    model.graph.node.append(helper.make_node("QLinearAdd", ["q"], ["z"], name="sum", domain="com.microsoft"))
    onnx.save(model, tmp_path / "cpu.onnx")
    with pytest.raises(BuildError, match=r"'sum' of .* is com\.microsoft\.QLinearAdd, made for CPUs"):
        build_engine(tmp_path / "cpu.onnx", tmp_path / "x.engine", precision="int8")


def test_one_engine_for_several_gpus(tmp_path: Path, network: Path) -> None:
    engine = build_engine(network, tmp_path / "net.engine", target="rtx:sm86,sm89,sm120")
    record = EngineRecord.load(sidecar_path(engine))
    assert record.requires["compute_capability"] == "8.6,8.9,12.0"
    assert meets("8.9", record.requires["compute_capability"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_gives_out_what_lies_inside(tmp_path: Path, network: Path, precision: EnginePrecision) -> None:
    names = tuple(node.output[0] for node in onnx.load(network).graph.node if node.op_type == "Conv")
    plain = build_engine(network, tmp_path / "plain.engine", precision=precision)
    engine = build_engine(
        network, tmp_path / "net.engine", precision=precision, options=BuildOptions(inner_outputs=names)
    )
    outputs = EngineRecord.load(sidecar_path(engine)).outputs
    assert [each.name for each in outputs] == ["logits", *names]
    assert {each.dtype for each in outputs[1:]} == {"float32" if precision == "fp32" else "float16"}
    # An engine holds the names of its inputs and outputs.
    for name in names:
        assert name.encode() in engine.read_bytes()
        assert name.encode() not in plain.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version_compatible": True}, "has no version-compatible engines; build again for each release"),
        ({"hardware_compatible": True}, "has no hardware compatibility levels; name the GPUs in the target: rtx:sm86"),
        ({"timing_cache": Path("times.cache")}, "has no timing cache: it measures no kernels"),
        ({"device": 1}, "has no choice of a GPU to build on: it builds for those that the target names; leave it out"),
    ],
)
def test_what_rtx_takes_and_ignores_is_refused(
    tmp_path: Path, network: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BuildError, match=rf"TensorRT-RTX [\d.]+ {message}"):
        build_engine(network, tmp_path / "x.engine", options=BuildOptions(**options))
    with pytest.raises(UsageError, match="DLA core 0; allowed: none"):
        build_engine(network, tmp_path / "x.engine", options=BuildOptions(dla_core=0))


@pytest.mark.skipif(cuda_driver_absent() is None, reason="this machine has a GPU")
@pytest.mark.parametrize("options", [{"refittable": True}, {"strip_weights": True}])
def test_refittable_rtx_engines_take_a_gpu(tmp_path: Path, network: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="compiles refittable engines on a GPU, and this machine has no NVIDIA driver"):
        build_engine(network, tmp_path / "x.engine", options=BuildOptions(**options))


@pytest.mark.skipif(cuda_driver_absent() is None, reason="this machine has a GPU")
@pytest.mark.parametrize("flag", ["REFIT", "REFIT_IDENTICAL", "VERSION_COMPATIBLE"])
def test_that_is_what_rtx_itself_does(network: Path, flag: str) -> None:
    """When a release of TensorRT-RTX learns it, the refusal goes."""
    trt: Any = require("tensorrt_rtx", "build")
    builder = trt.Builder(collecting_logger(trt, []))
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    config, graph = builder.create_builder_config(), builder.create_network(typed)
    assert trt.OnnxParser(graph, builder.logger).parse(network.read_bytes())
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.set_flag(getattr(trt.BuilderFlag, flag))
    assert builder.build_serialized_network(graph, config) is None
