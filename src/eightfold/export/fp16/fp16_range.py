"""Finds nodes that take or make values beyond the range of 16 bits: on images, and on extreme inputs.

A camera that is covered or over-exposed shall not give NaN. How coarsely the values are held counts on images alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from eightfold.arrays import Array, Arrays
from eightfold.export.fp16.fp16_emulation import emulated_fp16
from eightfold.export.fp16.fp16_graph import LARGEST, HalfType, fits, fp16_graph
from eightfold.export.verify.precision_check import ComparedNetwork, first_lost
from eightfold.export.verify.verify import runner, with_outputs

if TYPE_CHECKING:
    import onnx

# Nodes that make something not finite are found one after another, and the graph is made anew after each.
MOST_ROUNDS = 16


def nodes_out_of_range(model: onnx.ModelProto, runs: Sequence[Arrays], *, kind: HalfType = "float16") -> list[str]:
    """Names of nodes that take or make values near `kind`'s limit, or so small that it holds them coarsely."""
    found = _tensors(model, runs)
    return _touching(model, {name for name, array in found if not (_below_limit(array, kind) and fits(array, kind))})


def nodes_near_limit(model: onnx.ModelProto, runs: Sequence[Arrays], *, kind: HalfType = "float16") -> list[str]:
    """Names of nodes that take or make values near `kind`'s limit."""
    return _touching(model, {name for name, array in _tensors(model, runs) if not _below_limit(array, kind)})


def nodes_not_finite(
    model: onnx.ModelProto, runs: Sequence[Arrays], *, keep_float: Collection[str], kind: HalfType = "float16"
) -> list[str]:
    """Names of nodes that must stay in float32, beyond `keep_float`, for finite outputs: divisions by a sum that 16
    bits round to zero, for example. Not complete if there are more than a few."""
    makers = {name: node.name for node in model.graph.node for name in node.output}
    before, found = ComparedNetwork.of(model), list[str]()
    for _ in range(MOST_ROUNDS):
        half = fp16_graph(model, keep_float={*keep_float, *found}, kind=kind)
        after = ComparedNetwork.of(emulated_fp16(half, kind))
        lost = next(filter(None, (first_lost(before, after, inputs) for inputs in runs)), "")
        maker = makers.get(lost, "")
        if not maker or maker in found:
            break
        found.append(maker)
    return found


def _tensors(model: onnx.ModelProto, runs: Sequence[Arrays]) -> Iterator[tuple[str, Array]]:
    """Every float32 tensor of a graph on the inputs that it runs on."""
    from onnx import ModelProto

    probe = ModelProto()
    probe.CopyFrom(model)
    run = runner(
        with_outputs(probe, [name for node in model.graph.node for name in node.output if name]), optimize=False
    )
    for feeds in runs:
        for name, array in {**feeds, **run(feeds)}.items():
            if array.dtype == np.float32 and array.size:
                yield name, array


def _below_limit(array: Array, kind: HalfType) -> bool:
    return bool(np.max(np.abs(array)) <= LARGEST[kind] / 2)


def _touching(model: onnx.ModelProto, tensors: Collection[str]) -> list[str]:
    """The nodes that take or make one of these."""
    return [node.name for node in model.graph.node if not {*node.input, *node.output}.isdisjoint(tensors)]
