"""Versions of everything that can change a number, read from package metadata: nothing is imported."""

from __future__ import annotations

import importlib.metadata
import platform

# Import name -> the distributions that may provide it, in order of preference.
DISTRIBUTIONS: dict[str, tuple[str, ...]] = {
    "eightfold": ("eightfold",),
    "numpy": ("numpy",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "cuda": ("cuda-python", "cuda-bindings"),
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
    "timm": ("timm",),
}
# Import name -> distribution, for the rest of what is optional.
OTHERS = {"yaml": "PyYAML", "onnx_ir": "onnx-ir"}


def runtime_versions() -> dict[str, str]:
    """Name -> version of Python and of each installed package that can change a result or a time."""
    found = {name: installed_version(name) for name in DISTRIBUTIONS}
    return {"python": platform.python_version()} | {name: version for name, version in found.items() if version}


def installed_version(name: str) -> str | None:
    """The version of a package by its import name, or None when it is not installed."""
    for distribution in _distributions(name):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def provider_of(name: str) -> str:
    """The distribution that provides an import name, pinned to the installed version: what pip would reinstall."""
    for distribution in _distributions(name):
        try:
            return f"{distribution}=={importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return _distributions(name)[0]


def _distributions(name: str) -> tuple[str, ...]:
    return DISTRIBUTIONS.get(name, (OTHERS.get(name, name),))
