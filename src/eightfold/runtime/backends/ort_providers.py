"""Options of onnxruntime's execution providers. Plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eightfold.files import sha256_of_file
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.cache_folder import cache_folder

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


def providers_of(provider: str, path: Path, version: str, options: SessionOptions) -> list[Any]:
    """`providers` for an InferenceSession: what is wanted, and then what takes over the nodes that it cannot run.

    Args:
        provider: one of the three.
        path: the model.
        version: of onnxruntime.
    """
    device = {"device_id": options.device}
    if provider == TENSORRT:
        return [(TENSORRT, device | _tensorrt_options(path, version, options)), (CUDA, device), CPU]
    return [CPU] if provider == CPU else [(provider, device), CPU]


def _tensorrt_options(path: Path, version: str, options: SessionOptions) -> dict[str, Any]:
    """By default it rebuilds engines at each start, which takes minutes, and computes INT8 graphs in float32."""
    settings = {
        "trt_fp16_enable": options.precision == "fp16",
        "trt_bf16_enable": options.precision == "bf16",
        "trt_int8_enable": options.precision == "int8",
    }
    settings = {name: True for name, wanted in settings.items() if wanted}
    folder = _engine_folder(path, version)
    if folder is None:
        return settings
    cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(folder), "trt_timing_cache_enable": True}
    return settings | cache


def _engine_folder(path: Path, version: str) -> Path | None:
    """A folder for this very file: onnxruntime would take an engine with other weights for the same one. None where no
    folder can be made."""
    return cache_folder(f"onnxruntime-{version}-tensorrt", sha256_of_file(path)[:32])
