"""Optional dependencies. Adapter modules import them through `require`, inside functions, so that every module
of eightfold can be imported with the base install alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from eightfold.errors import BrokenExtraError, MissingExtraError

EXTRA_OF = {
    "accelerate": "compress",
    "cuda": "tensorrt",
    "cryptography": "sign",
    "cv2": "images",
    "faster_coco_eval": "coco",
    "jinja2": "report",
    "matplotlib": "report",
    "mlxtend": "demo",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxruntime": "cpu",
    "onnxscript": "export",
    "onnxsim": "export",
    "onnxslim": "export",
    "openvino": "openvino",
    "pycuda": "pycuda",
    "ray": "ray",
    "safetensors": "compress",
    "segmentation_models_pytorch": "smp",
    "scipy": "compress",
    "tensorboard": "tensorboard",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "timm": "timm",
    "torch": "compress",
    "torchvision": "compress",
    "transformers": "hf",
    "ultralytics": "ultralytics",
    "yaml": "compress",
}


def require(module: str, purpose: str) -> ModuleType:
    """Import `module` (dotted names allowed), or raise MissingExtraError with the pip command.

    Only absence counts as missing: a package that is there but cannot be imported raises BrokenExtraError.

    Args:
        module: what to import, e.g. "onnxruntime" or "matplotlib.pyplot".
        purpose: what it is needed for, in words that complete "... to <purpose>".
    """
    top = module.partition(".")[0]
    if not installed(top):
        raise MissingExtraError(
            f"{top} is not installed, and is needed to {purpose}",
            remedy=f"run: pip install {repr(f'eightfold[{EXTRA_OF[top]}]') if top in EXTRA_OF else top}",
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BrokenExtraError(
            f"{top} is installed but cannot be imported ({error}), and is needed to {purpose}",
            remedy="run: eightfold doctor",
        ) from error


def installed(module: str) -> bool:
    """True if a module can be found; nothing is imported."""
    # A module that another thread is just importing may have no spec yet, which find_spec takes amiss.
    return sys.modules.get(module) is not None or importlib.util.find_spec(module) is not None
