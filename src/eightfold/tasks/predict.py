"""ONNX files as what a task evaluates."""

from __future__ import annotations

from pathlib import Path

from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import Array, Arrays
from eightfold.tasks.base import Predict


def onnx_predictor(path: Path) -> Predict:
    """A graph with one image input, run by ONNX Runtime. The outputs of one call are overwritten by the next."""
    session = open_session(path, "onnxruntime")
    slot, name = session.new_slot(), session.inputs[0].name

    def predict(images: Array) -> Arrays:
        slot.run_on({name: images})
        return slot.outputs

    return predict
