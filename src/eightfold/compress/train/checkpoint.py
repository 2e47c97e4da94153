"""Checkpoints of training: one safetensors file with weights, optimizer, averages and numbers. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eightfold.compress.train.averaging import restore
from eightfold.errors import ModelError
from eightfold.extras import require
from eightfold.files import atomic_path


@dataclass(frozen=True)
class Checkpoint:
    """Parts by name ("model", "optimizer", "best", "hook0" ...), each a set of tensors, and plain numbers."""

    parts: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Replace `path` at once, so that a kill leaves the old file or the new one."""
        save_file = require("safetensors.torch", "write checkpoints").save_file
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
            for part, values in self.parts.items()
            for name, tensor in values.items()
        }
        with atomic_path(path) as temporary:
            save_file(tensors, str(temporary), metadata={"facts": json.dumps(dict(self.facts))})

    @staticmethod
    def load(path: Path) -> Checkpoint:
        """Raises ModelError where the file is none that `save` wrote."""
        safetensors = require("safetensors", "read checkpoints")
        parts: dict[str, dict[str, Tensor]] = {}
        try:
            with safetensors.safe_open(str(path), framework="pt") as stored:
                facts = json.loads((stored.metadata() or {})["facts"])
                for key in stored.keys():  # noqa: SIM118 - no dictionary
                    part, _, name = key.partition("/")
                    parts.setdefault(part, {})[name] = stored.get_tensor(key)
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"{path} is no checkpoint of this training ({error})", remedy="remove it to start from the beginning"
            ) from None
        return Checkpoint(parts, facts)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """State of each parameter, by its position and the state's name."""
    state = optimizer.state_dict()["state"]
    return {
        f"{place}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for place, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`; parameter groups stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises ModelError where the checkpoint is of another network."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if own != theirs:
        differing = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
        raise ModelError(
            f"{path} is of another network: {differing[0]} is {theirs.get(differing[0])} there, here "
            f"{own.get(differing[0])}",
            remedy="remove it to start from the beginning",
        )
    restore(model, tensors)
