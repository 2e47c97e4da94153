"""Tiny models and bundles made by code."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.manifest import Artifact, Task
from eightfold.runtime.bundle.sizes import Size, size_text

SIZE = 8
CLASSES = 3


def save_classifier(path: Path, batch: int, *, scale: float = 1.0, size: Size = (SIZE, SIZE)) -> Path:
    """Logits are `scale` times the means of the three colour channels: red pictures are class 0, and so on."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])]
    factor = numpy_helper.from_array(np.array(scale, np.float32), "factor")
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "factor"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "means", inputs, outputs, [factor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def preprocess() -> Preprocess:
    return Preprocess(height=SIZE, width=SIZE)


MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path, preprocess: Preprocess) -> MakeBundle:
    """make_bundle(batches=(1, 4), variants={"pruned": 10.0}, name="bundle", sizes=()) -> path of a bundle.

    `sizes` are further ones, beside (8, 8) of its preprocessing.
    """

    def make(
        batches: tuple[int, ...] = (1, 4),
        variants: dict[str, float] | None = None,
        name: str = "bundle",
        sizes: tuple[Size, ...] = (),
        preprocess: Preprocess = preprocess,
    ) -> Path:
        artifacts: list[Artifact] = []
        files: dict[str, Path] = {}
        default = (preprocess.height, preprocess.width)
        for variant, scale in (variants or {"pruned": 10.0}).items():
            for size, batch in itertools.product((default, *sizes), batches):
                words = f"{size_text(size)}-b{batch}" if sizes else f"b{batch}"
                inside = f"onnx/{variant}-{words}.onnx"
                source = save_classifier(tmp_path / inside.replace("/", "-"), batch, scale=scale, size=size)
                files[inside] = source
                artifacts.append(onnx_artifact(source, id=f"{variant}-fp32-{words}", inside=inside, variant=variant))
        task = Task(kind="classify", decode="classify", labels=("red", "green", "blue"))
        return write_bundle(
            tmp_path / name, name="colours", task=task, preprocess=preprocess, artifacts=artifacts, files=files
        )

    return make


@pytest.fixture
def bundle_path(make_bundle: MakeBundle) -> Path:
    return make_bundle()
