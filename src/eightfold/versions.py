"""Versions of everything that can change a number, read from package metadata: nothing is imported."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Iterable

import eightfold

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
    if name == "eightfold":  # from a checkout, package metadata may be those of an earlier install
        return eightfold.__version__
    return next(iter(distributions_of(name).values()), None)


def identity_of(names: Iterable[str]) -> str:
    """The installed versions of some packages in one line, to tell whether stored numbers may be used again.

    >>> identity_of(["eightfold", "no_such_package"]).endswith("no_such_package None")
    True
    """
    return ", ".join(f"{name} {installed_version(name)}" for name in names)


def distributions_of(name: str) -> dict[str, str]:
    """Installed distribution -> version, of those that provide an import name. More than one is often a mistake."""
    found = {each: _version(each) for each in DISTRIBUTIONS.get(name, (OTHERS.get(name, name),))}
    return {distribution: version for distribution, version in found.items() if version is not None}


@functools.cache  # each look-up searches all of `sys.path`, and every step of a run asks for twenty
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
