"""Types and shapes are stated in a graph, for those who read them there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eightfold.onnx_graph.shape_inference import inferred_shapes

if TYPE_CHECKING:
    import onnx


def state_shapes(model: onnx.ModelProto) -> None:
    """State the types and shapes of everything in between."""
    found = inferred_shapes(model)
    del model.graph.value_info[:]
    model.graph.value_info.extend(found)
