"""Outputs that hold their images along another axis than the first, as text recognizers give (time, batch, classes): a
bundle's outputs have the batch first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eightfold.arrays import Array
from eightfold.errors import ModelError
from eightfold.export.fixed_size.file_inputs import FileInputs
from eightfold.export.verify.test_inputs import cycled
from eightfold.export.verify.verify import runner
from eightfold.onnx_graph.graph_index import GraphIndex

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]


def batch_axes(inputs: FileInputs, rows: Array) -> tuple[int, ...]:
    """For each output of a file the axis that is as long as there are images: found by running it on two and on three
    of `rows`, or on one where it is fixed at that. 0 where no single axis is, and where it is fixed at more.
    """
    run = runner(inputs.path)

    def shapes(count: int) -> list[Shape]:
        feeds = {**inputs.feeds(cycled(rows, count)), **inputs.constants_at(count)}
        # Sequences, which have none, are refused where the file is frozen.
        return [getattr(array, "shape", ()) for array in run(feeds).values()]

    if inputs.fixed_batch > 1:
        return ()
    try:
        if inputs.fixed_batch:
            return tuple(shape.index(1) if shape.count(1) == 1 else 0 for shape in shapes(1))
        two = shapes(2)
        three = shapes(3) if any(shape[:1] != (2,) for shape in two) else two
    except ModelError:  # said better where it is exported
        return ()
    return tuple(_axis(*pair) for pair in zip(two, three, strict=True))


def _axis(two: Shape, three: Shape) -> int:
    if len(two) != len(three):
        return 0
    moved = [axis for axis, lengths in enumerate(zip(two, three, strict=True)) if lengths[0] != lengths[1]]
    return moved[0] if len(moved) == 1 and (two[moved[0]], three[moved[0]]) == (2, 3) else 0


def with_batch_first(model: onnx.ModelProto, axes: Sequence[int]) -> onnx.ModelProto:
    """Put a Transpose behind each output whose axis is not 0, in place; its name goes to what comes out of that."""
    from onnx import helper

    index = GraphIndex(model.graph)
    for value, axis in zip(model.graph.output, axes, strict=bool(axes)):
        maker = index.producer.get(value.name)
        if not axis or maker is None or value.name in index.captured:
            continue
        inner = index.free(f"{value.name}_before_transpose")
        maker.output[:] = [inner if name == value.name else name for name in maker.output]
        for node in index.readers.get(value.name, []):
            node.input[:] = [inner if name == value.name else name for name in node.input]
        dims = list(value.type.tensor_type.shape.dim)
        order = [axis, *(place for place in range(len(dims)) if place != axis)]
        model.graph.node.append(helper.make_node("Transpose", [inner], [value.name], value.name, perm=order))
        lengths = [dims[place].dim_value for place in order]
        for dim, length in zip(dims, lengths, strict=True):
            dim.dim_value = length
    return model
