"""Devices, processes and mixed precision of training. The only module that imports accelerate.

One process on a CPU or a GPU needs no launcher; under torchrun each process takes its rows of every batch, and
gradients are averaged, so that any number of processes trains as one does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eightfold.compress.train.hooks import Batch
from eightfold.errors import UsageError, one_of
from eightfold.extras import require

Amp = Literal["auto", "off", "bf16"]
DeviceName = Literal["auto", "cpu", "cuda"]
DEVICE_NAMES: tuple[DeviceName, ...] = ("auto", "cpu", "cuda")


class Devices:
    """The devices of a training.

    Args:
        device: "auto" (a GPU if there is one), "cpu" or "cuda".
        amp: "bf16" computes forward passes in bfloat16; "auto" does where the hardware multiplies bfloat16.
    """

    def __init__(self, device: DeviceName = "auto", amp: Amp = "auto") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda, and torch sees no GPU", allowed="auto or cpu on this machine")
        accelerate = require("accelerate", "train")
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        self._accelerator: Any = accelerate.Accelerator(cpu=on_cpu, mixed_precision="no")
        self.device: torch.device = self._accelerator.device
        self.bf16 = amp == "bf16" or (amp == "auto" and multiplies_bf16(self.device))

    @property
    def is_main(self) -> bool:
        """True in the process that writes files."""
        return bool(self._accelerator.is_main_process)

    @property
    def processes(self) -> int:
        """Number of processes that train together."""
        return int(self._accelerator.num_processes)

    def prepare(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """The model on the device, inside DistributedDataParallel where several processes train, and its optimizer."""
        prepared: tuple[nn.Module, Optimizer] = self._accelerator.prepare(model, optimizer)
        return prepared

    def bare(self, model: nn.Module) -> nn.Module:
        """The module without the wrappers of distributed training."""
        inner: nn.Module = self._accelerator.unwrap_model(model)
        return inner

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass, scaled where the precision needs it."""
        self._accelerator.backward(loss)

    def autocast(self) -> torch.autocast:
        """A context in which operators run in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def accumulating(self, model: nn.Module, last: bool) -> Iterator[None]:
        """No exchange of gradients between processes but at the last part of an accumulated batch."""
        with contextlib.nullcontext() if last else self._accelerator.no_sync(model):
            yield

    def place(self, batch: Batch) -> Batch:
        """This process's rows of a batch, on the device."""
        return Batch(self._placed(batch.inputs), self._placed(batch.target))

    def _placed(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            rows = value[self._accelerator.process_index :: self.processes] if self.processes > 1 else value
            return rows.to(self.device, non_blocking=True)
        if isinstance(value, dict):
            return {key: self._placed(each) for key, each in value.items()}
        if isinstance(value, tuple | list):
            return type(value)(self._placed(each) for each in value)
        return value

    def mean(self, value: float) -> float:
        """Mean over processes, the same number in each."""
        if self.processes == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        return float(self._accelerator.reduce(shared, reduction="mean"))

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._accelerator.wait_for_everyone()


def as_device(name: str) -> DeviceName:
    """Raises UsageError for a name that is none."""
    return one_of("device", name, DEVICE_NAMES)


def wait_for_others() -> None:
    """Wait until all processes that train together are here; nothing where one trains alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def multiplies_bf16(device: torch.device) -> bool:
    """True if the hardware has matrix units for bfloat16: NVIDIA from Ampere on, x86 with AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
