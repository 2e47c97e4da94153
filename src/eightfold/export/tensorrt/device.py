"""The GPU that an engine is built on: made current for the build, and named in its record."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from eightfold.runtime.backends.cuda_memory import cuda_absent, open_cuda
from eightfold.runtime.devices.device_gpu import read_gpus
from eightfold.runtime.devices.device_probe import DeviceProbe


@dataclasses.dataclass(frozen=True)
class BuildGpu:
    """A GPU's name and compute capability ("8.7"); "" where nothing here can tell."""

    name: str = ""
    compute_capability: str = ""


@contextlib.contextmanager
def building_gpu(number: int) -> Iterator[BuildGpu]:
    """Makes a GPU current. TensorRT itself takes number 0 where no library is there that could choose another.

    Raises:
        BackendError: there is no such GPU, or it is not number 0 and cuda-python and PyCUDA are absent.
    """
    if number == 0 and cuda_absent() is not None:
        yield _told_by_driver()
        return
    cuda = open_cuda(number)
    with cuda.active():
        yield BuildGpu(cuda.device_name(), cuda.compute_capability())


def _told_by_driver() -> BuildGpu:
    gpus = read_gpus(DeviceProbe())
    if len(gpus) != 1:  # nvidia-smi does not number them as CUDA does
        return BuildGpu()
    return BuildGpu(gpus[0].name, gpus[0].compute_capability or "")
