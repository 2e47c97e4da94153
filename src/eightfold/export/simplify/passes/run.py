"""All passes in order, again and again until nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from eightfold.export.simplify.passes.chained_reshapes import chained_reshapes
from eightfold.export.simplify.passes.constant_reshape import constant_reshape
from eightfold.export.simplify.passes.duplicates import duplicate_nodes, duplicate_weights
from eightfold.export.simplify.passes.no_ops import no_ops
from eightfold.export.simplify.passes.pad_into_conv import pad_into_conv
from eightfold.export.simplify.passes.parallel_convs import parallel_convs
from eightfold.export.simplify.passes.parallel_matmuls import parallel_matmuls
from eightfold.export.simplify.passes.quantize_pairs import quantize_pairs
from eightfold.export.simplify.passes.row_reshapes import row_reshapes
from eightfold.onnx_graph.fold_norms import norm_into_conv
from eightfold.onnx_graph.graph_index import drop_unused
from eightfold.onnx_graph.onnx_files import opset_of
from eightfold.onnx_graph.shape_inference import state_shapes

if TYPE_CHECKING:
    import onnx

Pass = Callable[["onnx.GraphProto"], int]

PASSES: tuple[Pass, ...] = (
    constant_reshape,
    chained_reshapes,
    no_ops,
    pad_into_conv,
    norm_into_conv,
    parallel_convs,
    parallel_matmuls,
    row_reshapes,
    quantize_pairs,
    duplicate_weights,
    duplicate_nodes,
    drop_unused,
)
# The opset from which on the nodes that a pass writes take their sizes as inputs; before, they were options.
SINCE: dict[Pass, int] = {constant_reshape: 5, chained_reshapes: 5, parallel_matmuls: 13}
# Each round can only shrink the graph; a few are enough, and the bound makes an end certain.
MOST_ROUNDS = 8


def apply_passes(model: onnx.ModelProto) -> dict[str, int]:
    """Run every pass on `model` in place until none changes it. Returns the number of changes by pass."""
    changes: Counter[str] = Counter()
    passes = [each for each in PASSES if SINCE.get(each, 0) <= opset_of(model)]
    for _ in range(MOST_ROUNDS):
        state_shapes(model)
        found = {each.__name__: each(model.graph) for each in passes}
        changes.update({name: count for name, count in found.items() if count})
        if not any(found.values()):
            break
    return dict(changes)
