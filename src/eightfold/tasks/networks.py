"""ONNX files and torch modules as what a task evaluates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.backends import open_session
from eightfold.runtime.bundle.manifest import Task
from eightfold.tasks.base import Network

if TYPE_CHECKING:
    from torch import nn

MODULE_BATCH = 50


def onnx_network(path: Path, preprocess: Preprocess, task: Task) -> Network:
    """A graph with one image input, run by ONNX Runtime at its own batch."""
    session = open_session(path, "onnxruntime")
    slot, spec = session.new_slot(), session.inputs[0]

    def predict(images: Array) -> Arrays:
        slot.run_on({spec.name: images})
        return slot.outputs

    return Network(predict, spec.shape[0], preprocess, task)


def module_network(model: nn.Module, preprocess: Preprocess, task: Task, *, batch: int = MODULE_BATCH) -> Network:
    """A torch module, whose outputs are named as in its ONNX graph."""
    import torch

    from eightfold.compress.onnx.module import OnnxModule
    from eightfold.export.verify.module_runs import named_outputs

    names = model.outputs if isinstance(model, OnnxModule) else ()

    def predict(images: Array) -> Arrays:
        with torch.inference_mode():
            found = named_outputs(model, [torch.from_numpy(images)], names)
        return {name: tensor.numpy() for name, tensor in found.items()}

    model.eval()
    return Network(predict, batch, preprocess, task)
