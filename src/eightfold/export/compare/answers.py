"""Answers of two networks to the same inputs, judged as quantization judges them: decoded where the decoder is known,
and each output and each of its channel groups by itself, in dB. And the tensor where most of the error arises."""

from __future__ import annotations

import numpy as np

from eightfold.arrays import Arrays
from eightfold.errors import BundleError, UnknownNameError
from eightfold.export.compare.runnables import Runnable
from eightfold.export.int8.decoded_errors import DecodedErrors, decoded_errors, size_of_images
from eightfold.export.int8.output_errors import OutputError, output_errors
from eightfold.export.verify.intermediates.diverging import Matches
from eightfold.export.verify.sqnr import NO_ERROR_DB
from eightfold.export.verify.verify import in_order_of
from eightfold.onnx_graph.layers import label
from eightfold.onnx_graph.onnx_files import load_onnx
from eightfold.runtime.bundle.manifest import Task
from eightfold.values import Frozen

# An output whose ratio is lower has a tensor named that costs it: the error is a tenth of the signal's size.
WORTH_NAMING_DB = 20.0


class CostlyTensor(Frozen):
    """The tensor at which the noise grows most.

    Attributes:
        tensor: its name in the first network.
        before_db, after_db: signal to noise of the worst tensor that it is computed from, and of itself.
        layer: the node to leave in float, where the second is an INT8 form of the first; "" elsewhere.
    """

    tensor: str
    before_db: float
    after_db: float
    layer: str = ""

    def describe(self) -> str:
        before = "no noise" if self.before_db >= NO_ERROR_DB else f"{self.before_db:.1f} dB"
        words = f"{self.tensor} costs most: {before} before it, {self.after_db:.1f} dB behind it"
        if not self.layer:
            return words
        return f"{words}; leave it in float when quantizing (--keep-float {self.layer}, keep_float=[{self.layer!r}])"


def judged_answers(
    known: Arrays, seen: Arrays, subjects: tuple[Runnable, Runnable], task: Task | None
) -> tuple[tuple[OutputError, ...], DecodedErrors | None]:
    """Errors of each output, and of the decoded answers: None where no decoder is known, or it cannot read them.

    Args:
        known, seen: outputs of the first and of the second.
        subjects: the two; a bundle's task counts where none is given.
        task: what the outputs mean.
    """
    seen = dict(zip(known, in_order_of(known, seen), strict=True))
    errors = output_errors([known], [seen], {})
    owner = next((each.owner for each in subjects if each.owner is not None), None)
    task = task or (owner.manifest.task if owner is not None else None)
    shapes = [spec.shape for each in subjects for spec in each.inputs if len(spec.shape) == 4]
    if task is None or not shapes:
        return errors, None
    try:
        return errors, decoded_errors(task, [known], [seen], size_of_images(shapes[0]))
    except (BundleError, UnknownNameError):  # a decoder that this version does not have
        return errors, None


def needs_a_name(errors: tuple[OutputError, ...], decoded: DecodedErrors | None) -> bool:
    """True where the answers differ by more than rounding does."""
    lowest = min((each.least_db for each in errors if each.least_db is not None), default=NO_ERROR_DB)
    return lowest < WORTH_NAMING_DB or (decoded is not None and not decoded.fair)


def costliest_tensor(matches: Matches, subjects: tuple[Runnable, Runnable]) -> CostlyTensor | None:
    """The tensor whose share of noise is most above that of what it is computed from; None where none is noisy."""
    tensors, leading = matches.inside.tensors, matches.inside.leading_to_outputs()
    noise: dict[int, float] = {}
    best, cost = None, 0.0
    for place, tensor in enumerate(tensors):
        before = max((noise[source] for source in tensor.sources), default=0.0)
        match = matches.by_place.get(place)
        found = match.difference if match is not None else None
        noise[place] = before if found is None else float(np.power(10.0, -found.sqnr_db / 10))
        if found is not None and place in leading and not tensor.moves and noise[place] - before > cost:
            best, cost = (tensor.name, before, found.sqnr_db), noise[place] - before
    if best is None:
        return None
    name, before, after_db = best
    before_db = -10 * float(np.log10(before)) if before > 0 else NO_ERROR_DB
    return CostlyTensor(tensor=name, before_db=before_db, after_db=after_db, layer=_layer(name, *subjects))


def _layer(tensor: str, first: Runnable, second: Runnable) -> str:
    """The node of a float graph whose INT8 form is the second."""
    if any(each.path is None or each.path.suffix != ".onnx" for each in (first, second)):
        return ""
    before, after = (load_onnx(each.path, external=False) for each in (first, second) if each.path is not None)
    quantized = [any("Quantize" in node.op_type or "QLinear" in node.op_type for node in each.graph.node)
                 for each in (before, after)]  # fmt: skip
    nodes = (node for node in before.graph.node if tensor in node.output)
    return next(map(label, nodes), "") if quantized == [False, True] else ""
