"""The backends `torch` and `torch-cuda`: a network as its users run it today, in evaluation mode and `inference_mode`.

They are registered from here, above the runtime, which never imports torch. A model file of theirs is a small JSON text
that names a model source, its options and the batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.errors import ModelError
from eightfold.extras import installed, require
from eightfold.files import write_text
from eightfold.json_types import JsonMapping
from eightfold.onnx_graph.tensor_specs import TensorSpec, spec_of
from eightfold.runtime.backends import register_backend
from eightfold.runtime.backends.base import Backend, Session, SessionOptions, Slot, empty_like
from eightfold.runtime.backends.cuda_memory import cuda_driver_absent
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import load_source

if TYPE_CHECKING:
    from torch import nn

NAME, CUDA_NAME, SUFFIX = "torch", "torch-cuda", ".torch.json"


def write_torch_model(loaded: LoadedModel, batch: int, weights: Path | None, path: Path) -> Path:
    """Describe a network for this backend: what loads it again, and its batch."""
    content = {
        "source": loaded.source,
        "arguments": dict(loaded.arguments),
        "size": loaded.size,
        "weights": None if weights is None else str(weights),
        "batch": batch,
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


class TorchBackend(Backend):
    """Runs torch modules on one kind of device.

    Args:
        name: of the backend.
        device: "cpu" or "cuda"; of the latter, the one that `SessionOptions.device` numbers.
    """

    formats = (NAME,)

    def __init__(self, name: str, device: str) -> None:
        self.name, self._device = name, device
        self.on_gpu = device != "cpu"

    def absent(self) -> str | None:
        if not installed("torch"):
            return "torch is not installed; run: pip install 'eightfold[compress]'"
        if not self.on_gpu:
            return None
        # Importing torch takes seconds: not where there can be no GPU.
        if reason := cuda_driver_absent():
            return reason
        torch = require("torch", "run torch modules")
        return None if torch.cuda.is_available() else f"torch {torch.__version__} finds no CUDA device"

    def open(self, path: Path, options: SessionOptions) -> Session:
        device = f"{self._device}:{options.device}" if self.on_gpu else self._device
        return TorchSession(path, options, self.name, device)


class TorchSession(Session):
    """A module on one device, with inputs of one batch. Away from the CPU, a run includes the copies of inputs and
    outputs."""

    def __init__(self, path: Path, options: SessionOptions, backend: str, device: str) -> None:
        torch = require("torch", "run torch modules")
        self.backend, self.device = backend, device
        self.scope = "model" if device == "cpu" else "model+copies"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ModelError(
                f"{path} is no model of the backend {backend}", allowed=f"what bench writes as *{SUFFIX}"
            ) from None
        self.version, self.threads = torch.__version__, options.threads
        loaded = _load(content)
        self.module: nn.Module = loaded.module.eval().to(device)
        self._examples = loaded.example_inputs(content["batch"])
        self.inputs = tuple(
            spec_of(f"input{place}", str(np.dtype(each.numpy().dtype)), list(each.shape))
            for place, each in enumerate(self._examples)
        )
        self.outputs: tuple[TensorSpec, ...] = ()

    def new_slot(self) -> Slot:
        return TorchSlot(self)


class TorchSlot(Slot):
    """Buffers that the module reads in place on a CPU, and copies of which it reads elsewhere."""

    def __init__(self, session: TorchSession) -> None:
        import torch

        self._session = session
        self.inputs = {spec.name: empty_like(spec) for spec in session.inputs}
        self.outputs = {}
        self._tensors = tuple(torch.from_numpy(array) for array in self.inputs.values())

    def run(self) -> None:
        import torch

        if self._session.threads is not None and torch.get_num_threads() != self._session.threads:
            torch.set_num_threads(self._session.threads)
        device = self._session.device
        with torch.inference_mode():
            if device == "cpu":
                self._session.module(*self._tensors)
                return
            outputs = self._session.module(*(each.to(device) for each in self._tensors))
            # The copies wait for the kernels.
            torch.utils._pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, outputs)


def _load(content: JsonMapping) -> LoadedModel:
    arguments = content["arguments"]
    return load_source(
        content["source"],
        SourceOptions(
            num_classes=arguments.get("num_classes"),
            size=tuple(content["size"]),
            weights=None if content["weights"] is None else Path(content["weights"]),
            inputs=arguments.get("inputs", {}),
        ),
    )


register_backend(TorchBackend(NAME, "cpu"), __name__)
register_backend(TorchBackend(CUDA_NAME, "cuda"), __name__)
