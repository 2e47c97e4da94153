"""What a float16 graph answers, on a CPU that has no float16.

onnxruntime runs float16 nodes in float32 there and drops the casts between them, so that nothing is ever rounded and
nothing overflows: its answer says little. Here every float16 tensor is computed in float32 and then rounded for real.
That is how tensor cores work as well, which accumulate in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.export.onnx_files import load_onnx
from eightfold.export.shapes import state_shapes
from eightfold.export.verify import (
    Arrays,
    Tolerance,
    compare,
    first_diverging_of,
    require_within,
    run_onnx,
    step_from,
)
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step

if TYPE_CHECKING:
    import onnx

FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's element types


def emulated_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that rounds to float16 wherever `model`, a float16 graph, holds such a tensor."""
    from onnx import ModelProto, numpy_helper

    made = ModelProto()
    made.CopyFrom(model)
    state_shapes(made)
    halves = {value.name for value in made.graph.value_info if value.type.tensor_type.elem_type == FLOAT16}
    for tensor in made.graph.initializer:
        if tensor.data_type == FLOAT16:
            array = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    nodes = [each for node in made.graph.node for each in (node, *_rounded_outputs(node, halves))]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    del made.graph.value_info[:]
    return made


def verify_half(before: PathLike, half: onnx.ModelProto, inputs: Arrays, *, tolerance: Tolerance) -> Step:
    """Compare a float32 file with its float16 graph on `inputs`.

    Raises VerificationError beyond the tolerance, naming the first tensor that differs.
    """
    emulated = emulated_half(half)
    differences = compare(run_onnx(before, inputs), run_onnx(emulated.SerializeToString(), inputs))
    if any(item.beyond(tolerance) for item in differences):
        first = first_diverging_of(load_onnx(before), emulated, inputs, tolerance)
        require_within(differences, tolerance, step="float16", first=first)
    return step_from(differences, name="float16")


def _rounded_outputs(node: onnx.NodeProto, halves: set[str]) -> list[onnx.NodeProto]:
    """Give the node's float16 outputs other names, and return the casts that bring them back, rounded."""
    from onnx import helper

    casts = []
    for place, name in enumerate(node.output):
        if name in halves:
            node.output[place] = f"{name}_exact"
            casts.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_half_bits"], to=FLOAT16))
            casts.append(helper.make_node("Cast", [f"{name}_half_bits"], [name], to=FLOAT))
    return casts
