"""Scores a quantized graph: a metric over labelled images, or the SQNR of its outputs without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.class_order import output_labels
from eightfold.calib.images.data_reader import batched, open_data, peeked
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.images.preprocess import Preprocess
from eightfold.calib.session import open_runner
from eightfold.errors import ImageError
from eightfold.export.int8.calibration_inputs import calibration_inputs
from eightfold.export.int8.layer_errors import output_sqnr_db
from eightfold.export.int8.output_errors import mean_db, output_errors
from eightfold.export.verify.verify import runner
from eightfold.onnx_graph.graph import ModelGraph
from eightfold.onnx_graph.onnx_files import load_onnx

CEILING_DB = 60.0  # stands for a float graph's
Evaluate = Callable[[Path], float]


@dataclass(frozen=True)
class Score:
    """A number for a model file, higher is better.

    Args:
        name: what it is called in tables.
        unit: behind the number.
        of: the model file's score.
        perfect: what the float graph gets; None to measure it.
        data: digest of the images and of how they are prepared; remembered scores hold for it only.
    """

    name: str
    unit: str
    of: Evaluate
    perfect: float | None = None
    data: str = ""


def sqnr_score(fp32_path: Path, images: ImageSet, preprocess: Preprocess, *, ceiling_db: float = CEILING_DB) -> Score:
    """Signal to noise of the outputs against the float graph, in dB. Needs no labels."""
    data = images.digest() + preprocess.digest()
    return Score("SQNR", "dB", lambda path: output_sqnr_db(fp32_path, path, images, preprocess), ceiling_db, data)


def quick_sqnr_score(fp32_path: Path, images: ImageSet, preprocess: Preprocess) -> Score:
    """`sqnr_score` on up to 16 images as onnxruntime runs the optimized graph; the float answers are kept."""
    runs = next(iter(calibration_inputs(fp32_path, images, preprocess).values()))
    known = list(map(runner(fp32_path), runs))

    def ratio(path: Path) -> float:
        found = output_errors(known, list(map(runner(path), runs)), {})
        return mean_db([part for each in found for part in each.parts_db])

    return Score("quick SQNR", "dB", ratio, CEILING_DB, images.digest() + preprocess.digest())


def top1_score(images: ImageSet, preprocess: Preprocess) -> Score:
    """Share of images whose largest output is their label, in percent.

    Raises:
        ImageError: the images have no labels.
    """
    if images.labels is None:
        raise ImageError("these images have no labels", allowed="a folder per class, or a list file with labels")
    names = [images.name(index) for index in range(len(images))]

    def top1(path: Path) -> float:
        graph = ModelGraph(load_onnx(path), str(path))
        rows = open_data(images, preprocess, graph.input_shape[1:], graph.input_dtype)
        first, stream = peeked(rows, "measuring top-1")
        output = graph.model.graph.output[0].name
        runner = open_runner(graph, (output,), first, batch=16)
        used: list[str] = []  # what cannot be read is skipped
        found: list[Array] = []
        for named in batched(stream, runner.rows):
            used += [name for name, _ in named]
            found += [part[output] for part in runner([row for _, row in named])]
        scores = np.concatenate(found).reshape(len(used), -1)
        label_of = dict(zip(names, output_labels(images, scores.shape[1], source="the images"), strict=True))
        return float(np.mean([label_of[name] for name in used] == scores.argmax(axis=1)) * 100)

    return Score("top-1", "%", top1, data=images.digest() + preprocess.digest())
