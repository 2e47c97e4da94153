"""Equalization rescales weights and promises the same answer: here it is held to that."""

from __future__ import annotations

from itertools import islice

import numpy as np

from eightfold.calib.images import ImageSet
from eightfold.calib.preprocess import Preprocess
from eightfold.export.checks import verify_onnx
from eightfold.export.onnx_files import load_onnx
from eightfold.export.reference import notes_on_trials
from eightfold.export.verify import Tolerance, runner
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step, TensorSpec

# What scaling by up to ten thousand and back again does to float32.
TOLERANCE = Tolerance(max_rel_error=1e-3)


def verify_equalized(before: PathLike, after: PathLike, images: ImageSet, preprocess: Preprocess) -> Step:
    """Compare an equalized graph with the one it was made from on some of the images it was equalized for.

    Constants, extremes and noise are noted and not judged: a clip that no image reaches became a Relu.

    Raises:
        VerificationError: the answer moved beyond a relative error of 1e-3; the message names the first tensor.
    """
    value = next(iter(load_onnx(before, external=False).graph.input))
    batch = value.type.tensor_type.shape.dim[0].dim_value or 1
    rows = np.stack([preprocess(image) for image in islice(images, batch)])
    inputs = {value.name: np.resize(rows, (batch, *rows.shape[1:]))}
    step = verify_onnx(before, after, inputs, step="equalize", tolerance=TOLERANCE)
    spec = TensorSpec(name=value.name, dtype="float32", shape=inputs[value.name].shape)
    return step.model_copy(update={"notes": notes_on_trials(runner(before), runner(after), [spec])})
