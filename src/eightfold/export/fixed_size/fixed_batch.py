"""Files that were exported at one batch, at another one: what states the batch is made to follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from eightfold.onnx_graph.graph_index import GraphIndex
from eightfold.onnx_graph.operators import kind

if TYPE_CHECKING:
    import onnx


def loosen_batch(model: onnx.ModelProto, old: int, new: int) -> None:
    """Let constant shapes that begin with the batch `old` follow it, in place. The numbers say whether that was right:
    what comes out is compared with the file at its own batch."""
    if old in (0, new):
        return
    index = GraphIndex(model.graph)
    for node in model.graph.node:
        stated = kind(node) == "Reshape" and len(node.input) > 1
        shape = index.array(node.input[1]) if stated else None
        if shape is None:
            continue
        if len(shape) and shape[0] == old:
            # One length may be left open; else the first is that of what comes in.
            loose = np.concatenate([[0 if -1 in shape else -1], shape[1:]]).astype(np.int64)
            node.input[1] = index.set_weight(f"{node.output[0]}_shape", loose)
