"""Distillation as a hook of the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, distributed

from eightfold.compress.train.checkpoint import load_optimizer, optimizer_tensors
from eightfold.compress.train.distill.distiller import Distiller
from eightfold.compress.train.hooks import Batch, Hook, Run

ADAPTER_RATE = 1e-3


class Distill(Hook):
    """Adds a distiller's losses. Its adapters train with AdamW of their own, on the run's schedule."""

    def __init__(self, distiller: Distiller, *, rate: float = ADAPTER_RATE) -> None:
        self.distiller, self._rate = distiller, rate
        parameters = list(distiller.parameters())
        self._optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0) if parameters else None

    def on_start(self, run: Run) -> None:
        device = next(run.model.parameters()).device
        self.distiller.to(device)
        self.distiller._networks[1].to(device)

    @contextlib.contextmanager
    def around_forward(self, run: Run, batch: Batch) -> Iterator[None]:
        with self.distiller.watching():
            yield

    def terms(self, run: Run, batch: Batch, outputs: object) -> Mapping[str, Tensor]:
        found: dict[str, Tensor] = self.distiller(batch.inputs, outputs)
        return found

    def after_backward(self, run: Run) -> None:
        """Mean over processes, as the model's own gradients are."""
        if distributed.is_available() and distributed.is_initialized():
            for parameter in self.distiller.parameters():
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= distributed.get_world_size()

    def after_step(self, run: Run) -> None:
        if self._optimizer is not None:
            group = run.optimizer.param_groups[0]
            self._optimizer.param_groups[0]["lr"] = self._rate * group["lr"] / max(group["peak"], 1e-30)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        if self._optimizer is None:
            return {}
        state = {f"module/{name}": tensor for name, tensor in self.distiller.state_dict().items()}
        return state | {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(self._optimizer).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        if self._optimizer is not None:
            self.distiller.load_state_dict(parts["module"])
            load_optimizer(self._optimizer, parts["optimizer"])
