"""Versions of everything that can change a number, read from package metadata: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import platform

# What to call it -> the distributions that may provide it, in the order of preference.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "eightfold": ("eightfold",),
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "cuda-python": ("cuda-python", "cuda-bindings"),
    "pycuda": ("pycuda",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "onnx": ("onnx",),
    "onnxscript": ("onnxscript",),
    "onnxsim": ("onnxsim",),
    "onnxslim": ("onnxslim",),
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "scipy": ("scipy",),
    "safetensors": ("safetensors",),
}


def runtime_versions() -> dict[str, str]:
    """Name -> version of Python and of each installed package that can change a result or a time."""
    found = {name: installed_version(name) for name in DISTRIBUTIONS}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}


def installed_version(name: str) -> str | None:
    """The version of a package by its import name, or None when it is not installed."""
    for distribution in DISTRIBUTIONS.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
