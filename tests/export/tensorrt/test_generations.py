"""The same build against every TensorRT from 8.2 to 11.1, each with exactly the names that the real one has."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from eightfold.errors import BackendError, BuildError, UnknownNameError, UsageError
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.generation import generation_of, version_numbers
from eightfold.export.tensorrt.layers import EngineLayer, EngineLayers, layers_path
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.runtime.backends.cuda.cuda_python import CudaPython
from tests.export.networks import small_net
from tests.export.tensorrt.fake_tensorrt import SURFACES, VERSIONS, fake_tensorrt
from tests.runtime.backends.conftest import FakeCudaRuntime

FLAGS = ("FP16", "INT8", "STRONGLY_TYPED", "EXPLICIT_BATCH")
BEFORE_8_4 = [version for version in VERSIONS if version_numbers(version) < (8, 4)]
BEFORE_8_6 = [version for version in VERSIONS if version_numbers(version) < (8, 6)]
FROM_8_6 = [version for version in VERSIONS if version_numbers(version) >= (8, 6)]
BEFORE_10_12 = [version for version in VERSIONS if version_numbers(version) < (10, 12)]
FROM_10_12 = [version for version in VERSIONS if version_numbers(version) >= (10, 12)]
BEFORE_11 = [version for version in VERSIONS if version_numbers(version) < (11, 0)]
FROM_11 = [version for version in VERSIONS if version_numbers(version) >= (11, 0)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_net(), tmp_path_factory.mktemp("net") / "net.onnx", batch=1, image_size=16)


class Board:
    """A machine with a fake TensorRT of some version."""

    def __init__(self, network: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network, self.folder, self.monkeypatch = network, folder, monkeypatch

    def build(
        self,
        version: str,
        precision: EnginePrecision = "fp32",
        target: str = "tensorrt",
        *,
        gpu: bool = False,
        gpu_only: tuple[str, ...] = (),
        **options: Any,
    ) -> tuple[EngineRecord, dict[str, Any]]:
        made = self.install(version)
        made |= {"gpu": gpu, "gpu_only": gpu_only, "host_code": options.get("version_compatible")}
        engine = self.folder / "net.engine"
        build_engine(self.network, engine, target=target, precision=precision, options=BuildOptions(**options))
        return EngineRecord.load(sidecar_path(engine)), made

    def install(self, version: str) -> dict[str, Any]:
        trt, made = fake_tensorrt(version)
        self.monkeypatch.setitem(sys.modules, "tensorrt", trt)
        self.monkeypatch.setattr("eightfold.extras.installed", lambda module: True)
        for module in ("device", "refit"):
            self.monkeypatch.setattr(f"eightfold.export.tensorrt.{module}.cuda_absent", lambda: None)
        self.monkeypatch.setattr(
            "eightfold.export.tensorrt.device.open_cuda", lambda device: CudaPython(device, FakeCudaRuntime())
        )
        return made


@pytest.fixture
def board(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    return Board(network, tmp_path, monkeypatch)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_version_builds(board: Board, version: str, precision: EnginePrecision) -> None:
    record, made = board.build(version, precision)
    flags = set(FLAGS) & set(record.flags)
    batch = {"EXPLICIT_BATCH"} if version_numbers(version) < (10, 0) else set()
    if version in FROM_10_12:
        assert flags == {"STRONGLY_TYPED"}
    else:
        assert flags == batch | ({"FP16"} if precision == "fp16" else set())
    weights = {tensor.data_type for tensor in onnx.load_from_string(made["onnx"]).graph.initializer}
    typed_half = precision == "fp16" and version in FROM_10_12
    assert (TensorProto.FLOAT16 in weights) == typed_half
    assert (record.builder, record.builder_version) == ("tensorrt", f"{version}.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_workspace_is_set_the_versions_way(board: Board, version: str) -> None:
    _, made = board.build(version, workspace_bytes=1 << 20)
    (call,) = [call for call in made["config"].calls if "work" in str(call).lower() or "pool" in call[0]]
    assert call[0] == ("max_workspace_size" if version in BEFORE_8_4 else "set_memory_pool_limit")
    assert call[-1] == 1 << 20


@pytest.mark.parametrize("version", FROM_8_6)
def test_levels_and_compatibility(board: Board, version: str) -> None:
    record, made = board.build(
        version, gpu=True, optimization_level=5, version_compatible=True, hardware_compatible=True
    )
    # The inspector loads the host code that this builder has just put there.
    assert EngineLayers.load(layers_path(board.folder / "net.engine")).source == "inspector"
    assert "VERSION_COMPATIBLE" in record.flags
    assert made["config"].builder_optimization_level == 5
    assert made["config"].hardware_compatibility_level.name == "AMPERE_PLUS"
    before = {"8": 11, "10": 12, "11": 12}[version.partition(".")[0]]
    assert record.requires == {"tensorrt": f">={version}.0 <{before}", "compute_capability": ">=8.0"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_names_the_gpu(board: Board, version: str) -> None:
    record, _ = board.build(version)
    assert (record.device, record.compute_capability) == ("Orin Nano", "8.6")
    assert record.requires == {"tensorrt": f"{version}.0", "compute_capability": "8.6"}


def test_an_engine_without_weights_is_not_run(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("eightfold.export.tensorrt.build.compared_with_graph", lambda *_: compared.append(True))
    board.build("10.3", gpu=True, strip_weights=True)
    assert not compared
    board.build("10.3", gpu=True)
    assert compared


def test_another_gpu_is_asked_for_by_number(board: Board) -> None:
    with pytest.raises(BackendError, match="there is no CUDA device 3; allowed: 0 to 0"):
        board.build("10.3", device=3)


@pytest.mark.parametrize("version", BEFORE_8_6)
@pytest.mark.parametrize(
    "option", [{"optimization_level": 5}, {"version_compatible": True}, {"hardware_compatible": True}]
)
def test_what_a_version_lacks_is_refused(board: Board, version: str, option: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=rf"TensorRT {version}\.0 has no "):
        board.build(version, **option)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("8.4", {"optimization_level": 3}),
    ("8.5", {"version_compatible": True}),
    ("8.6", {"strip_weights": True}),
    ("10.3", {"tactic_sources": ("CUDNN", "CUDN")}),
    ("11.1", {"tactic_sources": ("CUDNN",)}),
    ("11.1", {"float_layers": ("conv",), "precision_constraints": "prefer"}),
    ("11.1", {"ranges": {"features": 1.0}}),
]


@pytest.mark.parametrize(("version", "option"), REFUSED)
def test_it_is_refused_before_any_work(
    board: Board, version: str, option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Converting a large graph to float16 takes a minute."""
    monkeypatch.setattr("eightfold.export.tensorrt.engine_from_onnx.typed_graph", None)
    with pytest.raises(BuildError, match=rf"TensorRT {version}\.0 "):
        board.build(version, "int8" if "ranges" in option else "fp16", **option)


@pytest.mark.parametrize("option", [{"precision_constraints": "prefer"}, {"gpu_fallback": False}])
def test_what_would_change_nothing_is_refused(board: Board, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"without .*; allowed: both: "):
        board.build("8.6", "fp16", **option)
    board.build("8.6", "fp16", **option, float_layers=("conv",), dla_core=0)


@pytest.mark.parametrize("version", VERSIONS)
def test_dla_falls_back_to_the_gpu(board: Board, version: str) -> None:
    record, made = board.build(version, target="tensorrt-dla", gpu_only=("conv",))
    assert "GPU_FALLBACK" in record.flags
    assert record.gpu_layers == ("conv",)
    assert record.describe().endswith("; 1 layer goes to the GPU: conv")
    assert made["config"].DLA_core == 0
    assert made["config"].default_device_type.name == "DLA"
    assert board.build(version, dla_core=1)[0].gpu_layers == ()
    with pytest.raises(UsageError, match="DLA core 2; allowed: 0 to 1"):
        board.build(version, dla_core=2)


@pytest.mark.parametrize("version", BEFORE_11)
def test_int8_by_ranges(board: Board, version: str) -> None:
    record, made = board.build(version, "int8", ranges={"pixels": 1.5, "features": 2.5})
    assert ("set_dynamic_range", -1.5, 1.5) in made["input"].calls
    assert ("set_dynamic_range", -2.5, 2.5) in made["tensor"].calls
    assert {"INT8", "FP16"} <= set(record.flags)  # float16 where there is no kernel in INT8
    assert "STRONGLY_TYPED" not in record.flags


@pytest.mark.parametrize("version", BEFORE_11)
def test_int8_by_a_calibration_cache(board: Board, version: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"TRT-EntropyCalibration2")
    record, made = board.build(version, "int8", calibration_cache=tmp_path / "cache")
    assert str(tmp_path) not in record.to_json()
    calibrator = made["config"].int8_calibrator
    assert calibrator.read_calibration_cache() == b"TRT-EntropyCalibration2"
    assert calibrator.get_batch(["images"]) is None


@pytest.mark.parametrize("version", BEFORE_11)
def test_a_gpu_without_int8_is_told_so(board: Board, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = board.install(version)
    monkeypatch.setattr(board, "install", lambda _: made)
    monkeypatch.setattr(sys.modules["tensorrt"].Builder, "platform_has_fast_int8", False)
    with pytest.raises(BuildError, match="this GPU has no INT8 arithmetic; allowed: fp16 and fp32; build"):
        board.build(version, "int8", ranges={"features": 2.5})
    board.build(version, "fp16")


@pytest.mark.parametrize("version", FROM_11)
def test_int8_by_ranges_is_gone_in_11(board: Board, version: str) -> None:
    with pytest.raises(BuildError, match=r"takes INT8 ranges from Q/DQ nodes only"):
        board.build(version, "int8", ranges={"features": 2.5})


@pytest.mark.parametrize("version", BEFORE_10_12)
def test_layers_kept_in_float(board: Board, version: str) -> None:
    record, made = board.build(version, "fp16", float_layers=("conv",), precision_constraints="prefer")
    assert "PREFER_PRECISION_CONSTRAINTS" in record.flags
    assert ("precision", "float32") in made["layer"].calls
    assert ("set_output_type", 0, "float32") in made["layer"].calls
    assert "OBEY_PRECISION_CONSTRAINTS" in board.build(version, "fp16", float_layers=("conv",))[0].flags
    with pytest.raises(UnknownNameError, match="unknown layer 'cnv'"):
        board.build(version, "fp16", float_layers=("cnv",))


@pytest.mark.parametrize("version", FROM_10_12)
def test_layers_kept_in_float_are_a_matter_of_the_graph(board: Board, version: str) -> None:
    first = next(node.name for node in onnx.load(board.network).graph.node if node.op_type == "Conv")
    record, made = board.build(version, "fp16", float_layers=(first,))
    assert "OBEY_PRECISION_CONSTRAINTS" not in record.flags
    graph = onnx.load_from_string(made["onnx"]).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds = {node.name: types[node.input[1]] for node in graph.node if node.op_type == "Conv"}
    assert kinds.pop(first) == TensorProto.FLOAT
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    with pytest.raises(UnknownNameError, match="unknown node 'cnv'"):
        board.build(version, "fp16", float_layers=("cnv",))
    with pytest.raises(BuildError, match="takes types from the graph, and always obeys them"):
        board.build(version, "fp16", float_layers=(first,), precision_constraints="prefer")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_timing_cache_is_loaded_merged_and_saved(board: Board, version: str, tmp_path: Path) -> None:
    board.build(version, timing_cache=tmp_path / "times.cache")
    (file,) = tmp_path.glob("times.*.cache")
    assert file.name == f"times.tensorrt-{version}.0-Orin-Nano.cache"
    assert file.read_bytes() == b"times"
    _, made = board.build(version, timing_cache=tmp_path / "times.cache")
    assert made["caches"][0].arguments == (b"times",)
    for unusable in (b"damaged", b"foreign"):
        file.write_bytes(unusable)
        _, made = board.build(version, timing_cache=tmp_path / "times.cache")
        assert [each.arguments for each in made["caches"]] == [(b"",)]
        assert file.read_bytes() == b"times"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("meanwhile", "kept"), [(b"another", b"another+times"), (b"foreign", b"times")])
def test_what_another_build_measured_meanwhile_is_kept(
    board: Board, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: bytes, kept: bytes
) -> None:
    made = board.install(version)
    file = tmp_path / f"times.tensorrt-{version}.0-Orin-Nano.cache"

    def build(*_: Any) -> bytes:
        file.write_bytes(meanwhile)
        return b"engine"

    monkeypatch.setattr(board, "install", lambda _: made)
    monkeypatch.setattr(sys.modules["tensorrt"].Builder, "build_serialized_network", build)
    board.build(version, timing_cache=tmp_path / "times.cache")
    assert file.read_bytes() == kept


@pytest.mark.parametrize("version", VERSIONS)
def test_a_build_can_be_stopped_from_10_on(board: Board, version: str) -> None:
    _, made = board.build(version)
    monitors = [value for name, value, *_ in made["config"].calls if name == "progress_monitor"]
    assert [each.step_complete("any", 1) for each in monitors] == [True] * (version_numbers(version) >= (10, 0))


@pytest.mark.parametrize("version", VERSIONS)
def test_tactic_sources(board: Board, version: str) -> None:
    name = SURFACES[version]["names"]["TacticSource"][0]
    _, made = board.build(version, tactic_sources=(name,))
    assert ("set_tactic_sources", 1) in made["config"].calls
    with pytest.raises(BuildError, match="has no NO_SUCH_SOURCE"):
        board.build(version, tactic_sources=("NO_SUCH_SOURCE",))


def test_another_version_than_the_target_names_is_refused(board: Board) -> None:
    board.build("10.3", target="tensorrt:10.3")
    board.build("11.1", target="tensorrt:11")
    with pytest.raises(BuildError, match=r"TensorRT 10\.3\.0 is installed, the target names 8\.2"):
        board.build("10.3", target="tensorrt:8.2")


def test_versions_before_8_2_are_refused() -> None:
    with pytest.raises(BuildError, match=r"TensorRT 8\.0\.1 is installed; allowed: 8\.2 and later"):
        generation_of("tensorrt", "8.0.1")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_inspector_tells_the_layers_where_the_engine_loads(board: Board, version: str) -> None:
    _, made = board.build(version, gpu=True)
    assert made["config"].profiling_verbosity.name == "DETAILED"
    layers = EngineLayers.load(layers_path(board.folder / "net.engine"))
    assert layers.source == "inspector"
    assert layers.layers[0] == EngineLayer(
        name="conv + relu",
        kind="CaskConvolution",
        precision="Half",
        kernel="sm80_xmma_fprop",
        outputs=("features",),
        nodes=("conv", "relu"),
    )
    assert layers.making("rectified", "relu") == layers.making("features", "") == layers.layers[0]
    assert layers.making("rectified", "pool") is None
    assert layers.layers[1].name == "a layer that was built with its name only"


@pytest.mark.parametrize("version", VERSIONS)
def test_elsewhere_the_parsed_layers_are_told(board: Board, version: str) -> None:
    board.build(version)
    layers = EngineLayers.load(layers_path(board.folder / "net.engine"))
    assert layers.source == "network"
    assert layers.layers == (EngineLayer(name="conv", kind="convolution", precision="half", outputs=("features",)),)
    assert "before fusion: the inspector needs the engine's GPU" in layers.describe()


@pytest.mark.parametrize("version", VERSIONS)
def test_tensors_inside_become_outputs(board: Board, version: str) -> None:
    record, made = board.build(version, inner_outputs=("features",))
    assert made["marked"] == ["features"]
    inner = record.outputs[-1]
    assert (inner.name, inner.dtype, inner.shape) == ("features", "float16", (1, 8, 8, 8))
    assert record.options.inner_outputs == ("features",)
    with pytest.raises(UnknownNameError, match="unknown tensor 'feature'"):
        board.build(version, inner_outputs=("feature",))


def test_the_record_keeps_the_options_but_no_names_of_files(board: Board, tmp_path: Path) -> None:
    record, _ = board.build("8.6", workspace_bytes=1 << 20, optimization_level=2, timing_cache=tmp_path / "times")
    assert record.options == BuildOptions(workspace_bytes=1 << 20, optimization_level=2)
    assert str(tmp_path) not in record.to_json()
