"""What only a machine with a GPU can tell: `make test-gpu`. Engines that are built here run here, and answer as their
graphs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eightfold.calib.calibrate import calibrate
from eightfold.calib.images.data_reader import open_data
from eightfold.calib.trt_cache import thresholds_from_cache
from eightfold.errors import UsageError
from eightfold.export.compare.compare import compare_artifacts
from eightfold.export.int8.quantize import quantize
from eightfold.export.tensorrt.build import build_engine
from eightfold.export.tensorrt.calibrator import calibrator_from_rows
from eightfold.export.tensorrt.engine_from_onnx import EnginePrecision
from eightfold.export.tensorrt.generation import generation_of
from eightfold.export.tensorrt.layers import EngineLayers, layers_path
from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord, sidecar_path
from eightfold.export.tensorrt.refit import refit_engine
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.export.verify.verify import run_onnx
from eightfold.extras import installed, require
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.cuda_memory import cuda_absent, open_cuda
from eightfold.runtime.backends.engine_fit import meets
from eightfold.runtime.devices.devices import describe_device
from tests.export.networks import images, small_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_absent() is not None, reason=f"no usable GPU: {cuda_absent()}"),
    pytest.mark.skipif(not installed("tensorrt"), reason="TensorRT is not installed"),
]
ROWS = images(batch=32, seed=3)


@dataclasses.dataclass(frozen=True)
class Here:
    """The network, and the TensorRT of this machine."""

    network: Path
    folder: Path
    trt: Any

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.trt.__version__.split(".")[:2])

    def build(
        self, precision: EnginePrecision = "fp16", target: str = "tensorrt", source: Path | None = None, **options: Any
    ) -> tuple[Path, EngineRecord]:
        engine = self.folder / "net.engine"
        build_engine(
            source or self.network, engine, target=target, precision=precision, options=BuildOptions(**options)
        )
        return engine, EngineRecord.load(sidecar_path(engine))

    def expected(self) -> NDArray[np.float32]:
        return np.asarray(run_onnx(self.network, {"images": images()})["logits"])


@pytest.fixture
def here(tmp_path: Path) -> Here:
    network = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    return Here(network, tmp_path, require("tensorrt", "test it"))


def answer(engine: Path) -> NDArray[np.float32]:
    slot = open_session(engine, "tensorrt").new_slot()
    slot.run_on({"images": images()})
    return np.array(slot.outputs["logits"])


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-2), ("fp16", 5e-2)])
def test_an_engine_answers_as_its_graph(here: Here, precision: EnginePrecision, error: float) -> None:
    engine, record = here.build(precision, workspace_bytes=1 << 28)
    np.testing.assert_allclose(answer(engine), here.expected(), atol=error)
    step = record.steps[-1]
    assert step.name == "build"
    assert step.cosine is not None
    assert step.cosine > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_shows_its_layers(here: Here, precision: EnginePrecision) -> None:
    source = here.network
    if precision == "int8":
        source = here.folder / "int8.onnx"
        ranges = calibrate(here.network, iter(ROWS), None, method="minmax", batch=1)
        quantize(here.network, ranges, source, target="tensorrt")
    engine, _ = here.build(precision, source=source)
    comparison = compare_artifacts(source, engine, inputs={"images": images()})
    assert comparison.first_beyond == ""
    convolutions = {node.output[0] for node in load_onnx(source).graph.node if node.op_type == "Conv"}
    seen = {layer.tensor: layer.difference for layer in comparison.layers if layer.difference}
    assert convolutions <= set(seen)
    assert all(each.cosine > 0.99 for each in seen.values())
    assert any(layer.other_maker for layer in comparison.layers)


def test_the_record_names_this_gpu(here: Here) -> None:
    cuda = open_cuda()
    _, record = here.build()
    assert (record.device, record.compute_capability) == (cuda.device_name(), cuda.compute_capability())


def test_a_quantized_graph_answers_close_to_its_origin(here: Here) -> None:
    ranges = calibrate(here.network, iter(ROWS), None, method="minmax", batch=1)
    quantize(here.network, ranges, here.folder / "int8.onnx", target="tensorrt")
    engine, record = here.build("int8", source=here.folder / "int8.onnx")
    expected = run_onnx(here.folder / "int8.onnx", {"images": images()})["logits"]
    np.testing.assert_allclose(answer(engine), expected, atol=0.1)
    assert record.precision == "int8"


def test_the_timing_cache_is_used_again(here: Here) -> None:
    cache = here.folder / "times.cache"
    here.build(timing_cache=cache)
    (file,) = here.folder.glob("times.*.cache")
    assert here.trt.__version__ in file.name
    first = file.read_bytes()
    builder = here.trt.Builder(collecting_logger(here.trt, []))
    config = builder.create_builder_config()
    # What was written is of this device and version: the builder takes it without being told to look away.
    assert config.set_timing_cache(config.create_timing_cache(first), ignore_mismatch=False)
    here.build(timing_cache=cache)
    assert len(file.read_bytes()) >= len(first)


def test_the_inspector_tells_the_layers(here: Here) -> None:
    engine, _ = here.build()
    told = EngineLayers.load(layers_path(engine))
    assert told.source == "inspector"
    assert told.layers
    assert all(layer.name for layer in told.layers)


def test_a_damaged_or_foreign_timing_cache_is_begun_anew(here: Here) -> None:
    here.build(timing_cache=here.folder / "times.cache")
    (file,) = here.folder.glob("times.*.cache")
    for damaged in (b"", b"damaged", file.read_bytes()[:-40]):
        file.write_bytes(damaged)
        here.build(timing_cache=here.folder / "times.cache")
        assert file.stat().st_size > len(damaged)


@pytest.fixture
def with_ranges(here: Here) -> Here:
    if not generation_of("tensorrt", here.trt.__version__).ranges:
        pytest.skip(f"TensorRT {here.trt.__version__} takes INT8 ranges from Q/DQ nodes only")
    return here


def test_int8_by_dynamic_ranges(with_ranges: Here) -> None:
    ranges = calibrate(with_ranges.network, iter(ROWS), None, method="minmax", batch=1)
    engine, record = with_ranges.build("int8", ranges=ranges.thresholds)
    assert "INT8" in record.flags
    np.testing.assert_allclose(answer(engine), with_ranges.expected(), atol=0.5)


@pytest.mark.parametrize("algorithm", ["entropy2", "minmax", "entropy", "legacy"])
def test_the_calibrator_feeds_real_batches_and_its_cache_builds(with_ranges: Here, algorithm: Any) -> None:
    here, cache = with_ranges, with_ranges.folder / "calibration.cache"
    network8 = export_onnx(small_net(), here.folder / "net8.onnx", batch=8, image_size=16)
    trt, rows = here.trt, open_data(iter(ROWS), None, (3, 16, 16))
    builder = trt.Builder(collecting_logger(trt, []))
    generation = generation_of("tensorrt", trt.__version__)
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if generation.explicit_batch else 0
    network, config = builder.create_network(flags), builder.create_builder_config()
    assert trt.OnnxParser(network, builder.logger).parse(network8.read_bytes())
    config.set_flag(trt.BuilderFlag.INT8)
    config.int8_calibrator = calibrator_from_rows(trt, rows, open_cuda(), batch=8, cache=cache, algorithm=algorithm)
    assert builder.build_serialized_network(network, config) is not None
    found = thresholds_from_cache(cache.read_text())[1]
    ours = calibrate(here.network, iter(ROWS), None, method="minmax", batch=1)
    # Both saw the same pixels: the input's range is what the images say, up to a calibrator's clipping.
    assert 0.5 * ours.tensors["images"].threshold <= found["images"] <= 1.1 * ours.tensors["images"].threshold
    if algorithm == "entropy2":
        engine, _ = here.build("int8", calibration_cache=cache)
        np.testing.assert_allclose(answer(engine), here.expected(), atol=0.5)


def test_dla_runs_what_it_can(here: Here) -> None:
    builder = here.trt.Builder(collecting_logger(here.trt, []))
    if not builder.num_DLA_cores:
        with pytest.raises(UsageError, match="DLA core 0; allowed: none"):
            here.build(target="tensorrt-dla")
        pytest.skip("this device has no deep learning accelerator")
    engine, record = here.build(target="tensorrt-dla")
    parsed = {layer.name for layer in EngineLayers.load(layers_path(engine)).layers}
    assert "GPU_FALLBACK" in record.flags
    assert len(record.gpu_layers) < len(parsed) or not record.gpu_layers
    np.testing.assert_allclose(answer(engine), here.expected(), atol=5e-2)


def test_a_version_compatible_engine_runs_where_its_code_is_trusted(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    if here.numbers < (8, 6):
        pytest.skip(f"TensorRT {here.trt.__version__} has no version-compatible engines")
    engine, record = here.build(version_compatible=True)
    assert record.requires["tensorrt"].startswith(f">={here.trt.__version__} <")
    monkeypatch.setenv("EIGHTFOLD_TRUST_ENGINE_CODE", "1")
    np.testing.assert_allclose(answer(engine), here.expected(), atol=5e-2)


def test_a_hardware_compatible_engine_runs(here: Here) -> None:
    if here.numbers < (8, 6) or not meets(open_cuda().compute_capability(), ">=8.0") or describe_device().jetson:
        pytest.skip("hardware compatibility is for TensorRT 8.6, Ampere and later, and not for Jetson")
    engine, record = here.build(hardware_compatible=True)
    assert record.requires["compute_capability"] == ">=8.0"
    np.testing.assert_allclose(answer(engine), here.expected(), atol=5e-2)


@pytest.mark.parametrize("options", [{"strip_weights": True}, {"strip_weights": True, "refittable": True}])
def test_a_stripped_engine_answers_once_it_has_its_weights(here: Here, options: dict[str, Any]) -> None:
    if here.numbers < (10, 0):
        pytest.skip(f"TensorRT {here.trt.__version__} cannot strip weights")
    stripped, _ = here.build(**options)
    complete = refit_engine(stripped, here.network, here.folder / "complete.engine")
    np.testing.assert_allclose(answer(complete), here.expected(), atol=5e-2)


def test_a_refittable_engine_takes_other_weights(here: Here) -> None:
    if here.numbers < (10, 0):
        pytest.skip(f"TensorRT {here.trt.__version__} cannot refit from ONNX files")
    engine, _ = here.build("fp32", refittable=True)
    other = export_onnx(small_net(seed=1), here.folder / "other.onnx", batch=1, image_size=16)
    complete = refit_engine(engine, other, here.folder / "complete.engine")
    np.testing.assert_allclose(answer(complete), run_onnx(other, {"images": images()})["logits"], atol=1e-2)


def test_layers_kept_in_float32(here: Here) -> None:
    first = next(node.name for node in load_onnx(here.network).graph.node if node.op_type == "Conv")
    engine, record = here.build("fp16", float_layers=(first,))
    typed = generation_of("tensorrt", here.trt.__version__).strongly_typed
    assert ("OBEY_PRECISION_CONSTRAINTS" in record.flags) != typed
    np.testing.assert_allclose(answer(engine), here.expected(), atol=5e-2)


@pytest.mark.parametrize("level", [0, 5])
def test_optimization_levels(here: Here, level: int) -> None:
    if here.numbers < (8, 6):
        pytest.skip(f"TensorRT {here.trt.__version__} has no optimization levels")
    engine, _ = here.build(optimization_level=level)
    np.testing.assert_allclose(answer(engine), here.expected(), atol=5e-2)
