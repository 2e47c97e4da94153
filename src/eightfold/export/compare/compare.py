"""Any two artifacts side by side: outputs, and every layer of the first that has its like in the second."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eightfold.arrays import Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BuildError, ModelError, UsageError
from eightfold.export.compare.agreement import Judge, compare_classifiers
from eightfold.export.compare.answers import costliest_tensor, judged_answers, needs_a_name
from eightfold.export.compare.comparison import ComparedLayer, Comparison
from eightfold.export.compare.engine_runnable import showing_layers
from eightfold.export.compare.feeds import Feeder, feeds_of, rules_for
from eightfold.export.compare.runnables import Runnable, runnable_of
from eightfold.export.verify.intermediates.diverging import Matches, match_tensors
from eightfold.export.verify.verify import Tolerance, compare_arrays
from eightfold.files import PathLike
from eightfold.runtime.bundle.manifest import Task

if TYPE_CHECKING:
    import torch

# Rounding, even to 8 bits, turns a layer's answer by less.
PARTED = Tolerance(cosine=0.99)


def compare_artifacts(
    first: torch.nn.Module | PathLike | Runnable,
    second: torch.nn.Module | PathLike | Runnable,
    *,
    inputs: Arrays | Feeder | None = None,
    image_shape: tuple[int, int, int, int] = (1, 3, 224, 224),
    tolerance: Tolerance = PARTED,
    labelled: Any = None,
    preprocess: Preprocess | None = None,
    onnx: PathLike | None = None,
    judge: Judge = compare_classifiers,
    task: Task | None = None,
) -> Comparison:
    """Run any two artifacts on the same inputs and compare them, layer by layer where both show their layers.

    What stands for a layer is found by its values, in order of computation: names, batch norms that were folded and
    merged nodes do not matter.

    Args:
        first, second: torch modules, ONNX files, OpenVINO models, engines or artifacts of bundles; see `runnable_of`.
        inputs: arrays by input name, or a function that prepares the same images for either; random images when None.
            Real ones tell more. Where one takes pixels and the other does not, pixels are what to give.
        image_shape: (batch, channels, height, width) of those, where neither artifact says what it takes.
        tolerance: beyond it, a layer is named as the one where the two part.
        labelled: labelled images (a folder LABEL/*, or whatever `judge` takes) to measure both on.
        preprocess: of images, whether labelled or made from pixels; the one of a bundle among the two when None.
        onnx: the graph that an engine was built from, which its layers are found by; looked for in its bundle, beside
            it and as the other of the two when None.
        judge: what labelled images are for: top-1, or `eightfold.tasks.compare.compare_detectors`.

        task: what the outputs mean, where no bundle says it: decoded answers are compared as well.

    Raises:
        BackendError: this machine cannot run one of them.
        UsageError: the inputs of the two do not fit each other, labelled images came without a Preprocess, or `task`
            does not fit the outputs.
        ImageError: the labelled images have no labels.
    """
    subjects = runnable_of(first), runnable_of(second)
    fed = feeds_of(subjects, inputs, preprocess, image_shape)
    subjects = showing_layers(subjects[0], subjects[1], onnx), showing_layers(subjects[1], subjects[0], onnx)
    known, seen = (each.run(mine) for each, mine in zip(subjects, fed, strict=True))
    outputs = compare_arrays(known, seen)
    answers, decoded = judged_answers(known, seen, subjects, task)
    if task is not None and decoded is None:
        raise UsageError(
            f"the decoder {task.decode!r} does not read the outputs of {subjects[0].name}",
            allowed="the decoder of its outputs, or none",
        )
    found = Comparison(
        first=subjects[0].name,
        second=subjects[1].name,
        outputs=outputs,
        answers=answers,
        decoded=decoded,
        limit=f"cosine {tolerance.cosine:g}" if tolerance == PARTED else "the tolerance",
        on_random_inputs=inputs is None,
        agreement=None if labelled is None else judge(*subjects, labelled, _rules(*subjects, preprocess)),
    )
    return _with_layers(found, subjects, fed, tolerance)


def _rules(first: Runnable, second: Runnable, preprocess: Preprocess | None) -> tuple[Preprocess, Preprocess]:
    rules = rules_for(first, preprocess, second), rules_for(second, preprocess, first)
    if rules[0] is None or rules[1] is None:
        raise UsageError("labelled images without a Preprocess", allowed="both, or a bundle, which has one")
    return rules[0], rules[1]


def _with_layers(
    found: Comparison, subjects: tuple[Runnable, Runnable], fed: tuple[Arrays, Arrays], tolerance: Tolerance
) -> Comparison:
    first, second = (each.probe for each in subjects)
    if first is None or second is None:
        silent = next(each for each in subjects if each.probe is None)
        return found.model_copy(update={"no_layers": f"{silent.name} {silent.silence}"})
    try:
        matches = match_tensors(first, second, fed)
    except (BuildError, ModelError) as error:  # some graphs run, or are built, as a whole only
        return found.model_copy(update={"no_layers": str(error)})
    beyond = matches.first_beyond(tolerance)
    named = needs_a_name(found.answers, found.decoded)
    return found.model_copy(
        update={
            "layers": _layers(matches, tolerance, (subjects[0].maker, subjects[1].maker)),
            "first_beyond": beyond.inner.name if beyond else "",
            "costliest": costliest_tensor(matches, subjects) if named else None,
            "notes": tuple(each.remark for each in subjects if each.remark),
        }
    )


def _layers(
    matches: Matches, tolerance: Tolerance, makers: tuple[Callable[[str], str], Callable[[str], str]]
) -> tuple[ComparedLayer, ...]:
    """The computed tensors on the way to the outputs, without reshapes and slices."""
    leading, parted = matches.inside.leading_to_outputs(), matches.beyond(tolerance)
    return tuple(
        ComparedLayer(
            tensor=match.inner.name,
            op_type=match.inner.op,
            other=match.other.name if match.other else "",
            other_op=match.other.op if match.other else "",
            difference=match.difference,
            maker=makers[0](match.inner.name),
            other_maker=makers[1](match.other.name) if match.other else "",
            parted=match.difference is None and place in parted,
        )
        for place, match in sorted(matches.by_place.items())
        if place in leading and place not in matches.inside.outputs and not match.inner.moves
    )
