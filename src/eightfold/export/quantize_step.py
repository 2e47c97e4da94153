"""INT8 rounds on purpose: the graph is compared with the float graph that it was made from."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from eightfold.calib.graph import read_graph
from eightfold.calib.images import ImageSet
from eightfold.calib.preprocess import Preprocess
from eightfold.calib.rows import rows_of
from eightfold.export.lossy import Network, verify_lossy
from eightfold.export.onnx_files import DTYPE_OF_ELEM_TYPE
from eightfold.export.trials import COMPARED_IMAGES, trials_of, whole_runs
from eightfold.export.verify import Array, Tolerance
from eightfold.files import PathLike
from eightfold.runtime.manifest import Step, TensorSpec

# How much INT8 may change is a question of the task's metric. Below this it is broken.
TOLERANCE = Tolerance(cosine=0.5)


def verify_quantized(
    before: PathLike, after: PathLike, images: Any, preprocess: Preprocess | None, *, target: str
) -> Step:
    """Compare an INT8 graph with its float original on some images and on constants, extremes and noise.

    Args:
        before, after: the two files.
        images, preprocess: as for `calibrate`. None: random values, on which the difference is not judged.
        target: what the graph is for, as the step's name says.

    Raises:
        VerificationError: a cosine below 0.5 on the images, or an answer that is not finite where it was; the message
            names the first tensor.
    """
    spec = _input_of(before)
    real = None if images is None else {spec.name: whole_runs(_rows(images, preprocess, spec), spec.shape[0])}
    tolerance = Tolerance() if real is None else TOLERANCE
    networks = Network.of(before), Network.of(after)
    return verify_lossy(*networks, trials_of([spec], real), step=f"quantize for {target}", tolerance=tolerance)


def _input_of(path: PathLike) -> TensorSpec:
    """With one image per run where the batch is not fixed."""
    graph = read_graph(path)
    batch, *row = graph.input_shape
    dtype = DTYPE_OF_ELEM_TYPE[graph.input.type.tensor_type.elem_type]
    return TensorSpec(name=graph.input.name, dtype=dtype, shape=(max(batch, 1), *row))


def _rows(images: Any, preprocess: Preprocess | None, spec: TensorSpec) -> Array:
    chosen = images.sample(COMPARED_IMAGES) if isinstance(images, ImageSet) else images
    return np.stack([row for _, row in islice(rows_of(chosen, preprocess, spec.shape[1:]), COMPARED_IMAGES)])
