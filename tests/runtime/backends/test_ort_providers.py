from __future__ import annotations

from pathlib import Path

import pytest

from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.ort_providers import CPU, CUDA, TENSORRT, providers_of


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"a model")
    return path


def test_the_cpu_needs_nothing(model: Path) -> None:
    assert providers_of(CPU, model, "1.23.0", SessionOptions(device=1)) == [CPU]


def test_cuda_on_the_device_asked_for_and_the_cpu_for_the_rest(model: Path) -> None:
    assert providers_of(CUDA, model, "1.23.0", SessionOptions(device=1)) == [(CUDA, {"device_id": 1}), CPU]


@pytest.mark.parametrize(
    ("precision", "enabled"),
    [("fp32", []), ("fp16", ["trt_fp16_enable"]), ("bf16", ["trt_bf16_enable"]), ("int8", ["trt_int8_enable"])],
)
def test_tensorrt_is_told_the_precision_and_keeps_its_engines(model: Path, precision: str, enabled: list[str]) -> None:
    (name, options), *rest = providers_of(TENSORRT, model, "1.23.0", SessionOptions(device=2, precision=precision))
    assert (name, rest) == (TENSORRT, [(CUDA, {"device_id": 2}), CPU])
    assert [key for key in options if key.startswith("trt_") and "cache" not in key] == enabled
    assert options["trt_engine_cache_enable"]
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_engines_of_other_weights_or_another_onnxruntime_lie_elsewhere(model: Path) -> None:
    def folder(version: str) -> str:
        return str(providers_of(TENSORRT, model, version, SessionOptions())[0][1]["trt_engine_cache_path"])

    first, newer = folder("1.23.0"), folder("1.24.0")
    model.write_bytes(b"a MODEL")
    assert len({first, newer, folder("1.23.0")}) == 3


def test_without_a_place_for_engines_it_does_without(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(model))  # a file
    assert providers_of(TENSORRT, model, "1.23.0", SessionOptions())[0] == (TENSORRT, {"device_id": 0})
