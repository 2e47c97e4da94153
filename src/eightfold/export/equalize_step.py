"""Equalization rescales weights and promises the same answer: here it is held to that."""

from __future__ import annotations

from itertools import islice

import numpy as np

from eightfold.calib.images import ImageSet
from eightfold.calib.preprocess import Preprocess
from eightfold.export.lossy import Network, verify_lossy
from eightfold.export.onnx_files import input_specs, load_onnx
from eightfold.export.reference import Reference
from eightfold.export.trials import COMPARED_IMAGES, trials_of, whole_runs
from eightfold.export.verify import Tolerance
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step

STEP = "equalize"
# What scaling by up to ten thousand and back again does to float32.
TOLERANCE = Tolerance(max_rel_error=1e-3)


def verify_equalized(before: PathLike, after: PathLike, images: ImageSet, preprocess: Preprocess) -> Step:
    """Compare an equalized graph with the one it was made from, on up to 16 of the images it was equalized for.

    Constants, extremes and noise are judged as well where no clip became a Relu: there the arithmetic is exact. Where
    one did, because no image reaches its bound, the answer has to be finite there.

    Raises:
        VerificationError: the answer moved beyond a relative error of 1e-3; the message names the first tensor.
    """
    (spec,) = input_specs(load_onnx(before, external=False))
    rows = np.stack([preprocess(image) for image in islice(images, COMPARED_IMAGES)])
    trials = trials_of([spec], {spec.name: whole_runs(rows, spec.shape[0])})
    if _clips(before) == _clips(after):
        return Reference.of_file(before, trials).verify(after, step=STEP, tolerance=TOLERANCE)
    return verify_lossy(Network.of(before), Network.of(after), trials, step=STEP, tolerance=TOLERANCE)


def _clips(path: PathLike) -> int:
    return sum(node.op_type == "Clip" for node in load_onnx(path, external=False).graph.node)
