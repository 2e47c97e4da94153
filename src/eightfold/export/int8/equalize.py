"""Files of equalized networks, each held to the answers of the one it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eightfold.calib.calibrate import CalibrationOptions
from eightfold.calib.channels import ranges_of_channels
from eightfold.calib.equalize import Equalization, changed_weights, equalized, with_weights, without_batch_norms
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.ranges import Method
from eightfold.defaults import EQUALIZATION_METHOD
from eightfold.export.int8.calibration_inputs import calibration_inputs
from eightfold.export.verify.precision_check import ComparedNetwork, verify_precision
from eightfold.export.verify.reference import Reference
from eightfold.export.verify.test_inputs import COMPARED_IMAGES, InputSets
from eightfold.export.verify.verify import Tolerance
from eightfold.files import PathLike, atomic_path
from eightfold.onnx_graph.graph import read_graph
from eightfold.runtime.bundle.manifest import Step

if TYPE_CHECKING:
    import onnx

STEP = "equalize"
# What scaling by up to ten thousand and back again does to float32.
TOLERANCE = Tolerance(max_rel_error=1e-3)


class EqualizeReport(Equalization):
    """Result of `equalize`.

    Args:
        steps: how far the answers of each graph are from those of the one it was made from.
    """

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class GraphPair:
    """A float graph, where its equalized form goes, and how an image becomes a row of its input."""

    source: Path
    output: Path
    preprocess: Preprocess | None = None


def equalize(
    onnx_path: PathLike,
    output: PathLike,
    *,
    images: ImageSource | None = None,
    preprocess: Preprocess | None = None,
    method: Method = EQUALIZATION_METHOD,
) -> tuple[Path, EqualizeReport]:
    """Write a graph that computes the same, with the channel ranges of consecutive layers balanced.

    Batch norms are folded into their convolutions first. A clip (ReLU6) becomes a Relu where no image comes near its
    bound; where one does, the layers around it are left alone, and the report says so. The answers are compared before
    the file is written: on up to 16 of the images, or random values where there are none, on constants, extremes and
    noise. Where a clip became a Relu the answer has to be finite on these.

    Args:
        onnx_path: an FP32 graph with one input and fixed sizes, the batch excepted.
        output: where the equalized graph goes; may be the same file.
        images: as for `calibrate`. With them a channel's range is what its activations reach; without, what its
            weights reach, as in the paper.
        preprocess: how an image becomes a row of the model's input.
        method: how a channel's range follows from what was seen, as for `calibrate`.

    Returns:
        The output's path, and what was done.

    Raises:
        CalibrationError, ImageError: as `calibrate`.
        VerificationError: an answer moved beyond a relative error of 1e-3; the message names the first tensor that
            differs. Nothing is written.
    """
    return Path(output), equalize_batches(
        [GraphPair(Path(onnx_path), Path(output), preprocess)], images=images, method=method
    )


def equalize_batches(
    pairs: Sequence[GraphPair], *, images: ImageSource | None = None, method: Method = EQUALIZATION_METHOD
) -> EqualizeReport:
    """`equalize` for one network at several batch and image sizes: all get the weights found for the first.

    Args:
        pairs: each graph, and what is made of it.
        images, method: as for `equalize`.
    """
    first, *others = pairs
    some, images = _some_of(images)
    plain = without_batch_norms(read_graph(first.source))
    options = CalibrationOptions(method)
    found = {} if images is None else ranges_of_channels(plain, images, first.preprocess, options)
    equal, done = equalized(plain, found)
    weights = changed_weights(plain, equal)
    steps = [_write(first, equal, done, some)]
    for pair in others:
        model = with_weights(without_batch_norms(read_graph(pair.source)), weights, done.clips)
        steps.append(_write(pair, model, done, some))
    return EqualizeReport(**dict(done), steps=tuple(steps))


def _some_of(images: ImageSource | None) -> tuple[Any, Any]:
    """The images to compare on, and all of them: an iterator gives each once."""
    if not isinstance(images, Iterator):
        return images, images
    some = list(islice(images, COMPARED_IMAGES))
    return some, chain(some, images)


def _write(pair: GraphPair, model: onnx.ModelProto, done: Equalization, images: ImageSource | None) -> Step:
    with atomic_path(pair.output) as made:
        made.write_bytes(model.SerializeToString(deterministic=True))
        input_sets = calibration_inputs(pair.source, images, pair.preprocess)
        return verify_equalized(pair.source, made, input_sets, exact=not done.clips)


def verify_equalized(before: PathLike, after: PathLike, input_sets: InputSets, *, exact: bool) -> Step:
    """Compare an equalized graph with the one it was made from.

    Args:
        before, after: the two files.
        input_sets: on the first of them the answer has to be the same within the tolerance.
        exact: whether that holds for all of them. It does not where a clip became a Relu because no image reaches its
            bound: there the others have to be finite.

    Raises:
        VerificationError: the answer moved; the message names the first tensor.
    """
    if exact:
        return Reference.of_file(before, input_sets).verify(after, step=STEP, tolerance=TOLERANCE)
    return verify_precision(
        ComparedNetwork.of(before), ComparedNetwork.of(after), input_sets, step=STEP, tolerance=TOLERANCE
    )
