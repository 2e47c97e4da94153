"""INT8 rounds on purpose: the graph is compared with the float graph that it was made from."""

from __future__ import annotations

from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.int8.calibration_inputs import calibration_inputs
from eightfold.export.verify.precision_check import ComparedNetwork, verify_precision
from eightfold.export.verify.verify import Tolerance
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Step

# How much INT8 may change is a question of the task's metric. Below this it is broken.
TOLERANCE = Tolerance(cosine=0.5)


def verify_quantized(
    before: PathLike, after: PathLike, images: ImageSource | None, preprocess: Preprocess | None, *, target: str
) -> Step:
    """Compare an INT8 graph with its float original on some images and on constants, extremes and noise.

    Args:
        before, after: the two files.
        images, preprocess: as for `calibrate`. None: random values, on which the difference is not judged.
        target: what the graph is for, as the step's name says.

    Raises:
        VerificationError: a cosine below 0.5 on the images, or an answer that is not finite where it was; the message
            names the first tensor.
    """
    trials = calibration_inputs(before, images, preprocess)
    tolerance = Tolerance() if images is None else TOLERANCE
    networks = ComparedNetwork.of(before), ComparedNetwork.of(after)
    return verify_precision(*networks, trials, step=f"quantize for {target}", tolerance=tolerance)
