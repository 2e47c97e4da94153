"""Another batch for a file whose batch is fixed, where each image has the answer that it had."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Arrays
from eightfold.errors import ModelError
from eightfold.export.verify.test_inputs import random_inputs_of
from eightfold.export.verify.verify import runner
from eightfold.onnx_graph.onnx_files import input_specs

if TYPE_CHECKING:
    import onnx

Run = Callable[[Arrays], Arrays]


def require_rows_alike(before: onnx.ModelProto, after: onnx.ModelProto, names: Collection[str]) -> None:
    """Refuse a graph that does not answer each row of the inputs `names` as the graph of another batch does.

    Raises:
        ModelError: it does not run, or other answers come out.
    """
    old, new = (
        {spec.name: spec.shape[0] for spec in input_specs(model) if spec.name in names} for model in (before, after)
    )
    was, batch = next(iter(old.values())), next(iter(new.values()))
    rows = math.lcm(was, batch)
    known = random_inputs_of(input_specs(before))
    specs = [
        spec.model_copy(update={"shape": (rows, *spec.shape[1:])}) for spec in input_specs(before) if spec.name in names
    ]
    inputs = {**known, **random_inputs_of(specs)}
    try:
        found, wanted = (
            _in_turn(runner(model), inputs, names, size) for model, size in ((after, batch), (before, was))
        )
    except (ModelError, ValueError) as error:  # ValueError: outputs that cannot be put together
        why = error.seen if isinstance(error, ModelError) else str(error)
        raise fixed_batch(was, batch, why) from None
    for name, array in wanted.items():
        if found[name].shape != array.shape or not np.allclose(
            found[name], array, rtol=1e-3, atol=1e-4, equal_nan=True
        ):
            raise fixed_batch(was, batch, f"output {name!r} is another")


def _in_turn(run: Run, inputs: Arrays, names: Collection[str], batch: int) -> Arrays:
    rows = len(inputs[next(iter(names))])
    parts = [
        run({name: array[at : at + batch] if name in names else array for name, array in inputs.items()})
        for at in range(0, rows, batch)
    ]
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def fixed_batch(was: int, batch: int, why: str) -> ModelError:
    """The refusal of a batch that the graph does not take."""
    return ModelError(
        f"the batch is fixed at {was} inside of the graph: at {batch}, {why}",
        allowed=f"batch {was}",
        remedy="export the network again with that batch, or with a dynamic one",
    )
