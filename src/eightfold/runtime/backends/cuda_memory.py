"""Access to an NVIDIA GPU through cuda-python, or PyCUDA where the former has no wheel (old JetPacks)."""

from __future__ import annotations

from pathlib import Path

from eightfold.errors import BackendError
from eightfold.extras import installed
from eightfold.runtime.backends.cuda.base import Cuda

# One of these is there wherever a CUDA program can run: desktop and server drivers, Jetson, WSL.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")


def cuda_absent() -> str | None:
    """Reason why CUDA cannot be used here; None if it probably can. Imports nothing and starts no driver."""
    missing = cuda_driver_absent()
    if missing is None and not (_has_cuda_python() or installed("pycuda")):
        return "neither cuda-python nor PyCUDA is installed (pip install 'eightfold[tensorrt]', or pip install pycuda)"
    return missing


def cuda_driver_absent() -> str | None:
    """Reason why there is no NVIDIA driver; None if there is one."""
    return None if any(Path(path).exists() for path in DRIVER_FILES) else "this machine has no NVIDIA driver"


def open_cuda(device: int = 0) -> Cuda:
    """The device with that number, through cuda-python if it is there, else PyCUDA.

    Raises BackendError when neither is there, or the device is not.
    """
    if _has_cuda_python():
        from eightfold.runtime.backends.cuda.cuda_python import CudaPython

        return CudaPython(device)
    if installed("pycuda"):
        from eightfold.runtime.backends.cuda.cuda_pycuda import PyCuda

        return PyCuda(device)
    raise BackendError(
        "neither cuda-python nor PyCUDA is installed",
        allowed="one of them",
        remedy="run: pip install 'eightfold[tensorrt]' (on an old JetPack: pip install pycuda)",
    )


def _has_cuda_python() -> bool:
    return installed("cuda") and installed("cuda.bindings.runtime")
