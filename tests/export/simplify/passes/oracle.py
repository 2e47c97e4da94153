"""The oracle of every pass: the graph before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from eightfold.export.simplify.passes.run import apply_passes
from eightfold.export.verify.verify import run_onnx

RNG = np.random.default_rng(0)


def operators_after(model: onnx.ModelProto, shape: Sequence[int]) -> list[str]:
    """Operators left after all passes, which must give the same answer."""
    onnx.checker.check_model(model, full_check=True)
    feeds = {"images": RNG.standard_normal(shape).astype(np.float32)}
    before = run_onnx(model.SerializeToString(), feeds, optimize=False)
    apply_passes(model)
    onnx.checker.check_model(model, full_check=True)
    after = run_onnx(model.SerializeToString(), feeds, optimize=False)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in model.graph.node]
