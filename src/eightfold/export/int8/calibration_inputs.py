"""Selects calibration images to compare a calibrated graph and its quantized form on."""

from __future__ import annotations

from itertools import islice

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.data_reader import open_data
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.verify.test_inputs import COMPARED_IMAGES, InputSets, input_sets_of, whole_runs
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import read_graph
from eightfold.onnx_graph.tensor_specs import TensorSpec, spec_of


def calibration_inputs(path: PathLike, images: ImageSource | None, preprocess: Preprocess | None) -> InputSets:
    """Up to 16 of the images, or random values where there are none, and constants, extremes and noise.

    Args:
        path: a float graph with one input.
        images, preprocess: as for `calibrate`, or None.
    """
    spec = _input_of(path)
    real = None if images is None else {spec.name: whole_runs(_rows(images, preprocess, spec), spec.shape[0])}
    return input_sets_of([spec], real)


def _input_of(path: PathLike) -> TensorSpec:
    """With one image per run where the batch is not fixed."""
    graph = read_graph(path)
    batch, *row = graph.input_shape
    return spec_of(graph.input.name, graph.input_dtype, (max(batch, 1), *row))


def _rows(images: ImageSource, preprocess: Preprocess | None, spec: TensorSpec) -> Array:
    chosen = images.sample(COMPARED_IMAGES) if isinstance(images, ImageSet) else images
    return np.stack(
        [row for _, row in islice(open_data(chosen, preprocess, spec.shape[1:], spec.dtype), COMPARED_IMAGES)]
    )
