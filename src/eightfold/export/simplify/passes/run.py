"""All passes in order, again and again until nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from eightfold.errors import UsageError
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

# Each pass, and the opset from which on the nodes that it writes take their sizes as inputs; before, they were options.
PASSES: dict[Pass, int] = {
    constant_reshape: 5,
    chained_reshapes: 5,
    no_ops: 0,
    pad_into_conv: 0,
    norm_into_conv: 0,
    parallel_convs: 0,
    parallel_matmuls: 13,
    row_reshapes: 0,
    quantize_pairs: 0,
    duplicate_weights: 0,
    duplicate_nodes: 0,
}


def register_pass(function: Pass, *, since: int = 0) -> None:
    """Make a simplification pass part of `simplify`, after the others. Twice the same is refused.

    Args:
        function: changes a graph in place and returns the number of its changes; 0 when there is nothing left to do.
        since: the oldest opset whose operators it may write.
    """
    if function in PASSES:
        raise UsageError(f"the pass {function.__name__!r} exists", allowed="a new one", remedy="register it once")
    PASSES[function] = since


# Each round can only shrink the graph; a few are enough, and the bound makes an end certain.
MOST_ROUNDS = 8


def apply_passes(model: onnx.ModelProto) -> dict[str, int]:
    """Run every pass on `model` in place until none changes it. Returns the number of changes by pass."""
    changes: Counter[str] = Counter()
    passes = [*(each for each, since in PASSES.items() if since <= opset_of(model)), drop_unused]
    for _ in range(MOST_ROUNDS):
        state_shapes(model)
        found = {each.__name__: each(model.graph) for each in passes}
        changes.update({name: count for name, count in found.items() if count})
        if not any(found.values()):
            break
    return dict(changes)
