"""A detector that finds what it is shown, and what recipes make of it, made once for all test processes."""

from __future__ import annotations

import copy
import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from examples.shapes import ShapeDetector, train, write_part
from safetensors.torch import save_file
from torch import nn

import eightfold as ef
from eightfold.cli.pipeline.compress import compress
from eightfold.files import atomic_directory
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from


@contextmanager
def shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A path that all test processes have in common, held by one of them."""
    base = factory.getbasetemp()
    path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with path.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield path


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/train`, `data/test` and `weights.safetensors`. Tests read it only."""
    with shared(tmp_path_factory, "shapes") as folder:
        if not folder.exists():
            with atomic_directory(folder) as made:
                _make(made)
    return folder


def _make(folder: Path) -> None:
    write_part(folder / "data" / "train", 24, seed=1)
    write_part(folder / "data" / "test", 24, seed=2)
    torch.manual_seed(0)
    model = ShapeDetector()
    train(model, steps=120, batch=16)
    save_file(model.state_dict(), str(folder / "weights.safetensors"))


def _recipe(shapes: Path) -> dict[str, Any]:
    return {
        "name": "shapes",
        "output": "unused",
        "model": {"source": "examples.shapes:ShapeDetector", "weights": str(shapes / "weights.safetensors")},
        "task": {"kind": "detect", "decode": "yolo-dfl", "options": {"reg_max": 1, "score_threshold": 0.1}},
        "data": {"source": str(shapes / "data")},
        # Images are 96 x 128: boxes have to be moved back.
        "preprocess": {"height": 128, "width": 128, "resize": "letterbox"},
        "compress": {
            "rule": "uniform",
            "score": "l2",
            "keep_ratio": 0.75,
            "compensate": "lsq",
            "compensate_images": 16,
        },
        "export": {"batches": [1, 2]},
        "calibrate": {"images": 8, "method": "minmax"},
        "quantize": {"form": "qdq", "weight_bits": 8},  # not what this machine's processor wants
        "bench": {"backends": ["onnxruntime"], "threads": 1, "seconds_per_row": 0.01},
    }


def _decoding(shapes: Path) -> dict[str, Any]:
    return {**_recipe(shapes), "export": {"batches": [1, 2], "decode": True, "preprocess": "in-graph"}}


@pytest.fixture
def detector_recipe(shapes: Path) -> dict[str, Any]:
    """Of a detector with raw heads."""
    return copy.deepcopy(_recipe(shapes))


@pytest.fixture
def decoding_recipe(shapes: Path) -> dict[str, Any]:
    """The same with the decoder in the graphs, which take pixels as well."""
    return copy.deepcopy(_decoding(shapes))


@pytest.fixture(scope="session")
def raw_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """The directory of a finished run of `detector_recipe`. Tests read it only."""
    with shared(tmp_path_factory, "detector-raw") as folder:
        run(recipe_from(_recipe(shapes)), output=folder)
    return folder


@pytest.fixture(scope="session")
def decoded_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path, raw_run: Path) -> Path:
    """The directory of a finished run of `decoding_recipe`. Tests read it only."""
    with shared(tmp_path_factory, "detector-decoded") as folder:
        if not folder.exists():
            shutil.copytree(raw_run, folder)  # so that it need not prune again
        run(recipe_from(_decoding(shapes)), output=folder)
    return folder


@pytest.fixture(scope="session")
def compress_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.onnx, of an opset without Q/DQ by channel and with names of its own, and 12 photographs."""
    cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
    folder = tmp_path_factory.mktemp("front")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for number in range(12):
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), random.integers(0, 255, (32, 32, 3), np.uint8))
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 10))
    ef.export_onnx(network, folder / "net.onnx", batch=1, image_size=32, opset=11)
    onnx.save(_renamed(onnx.load(folder / "net.onnx"), {"images": "pixels", "logits": "scores"}), folder / "net.onnx")
    return folder


def _renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for held in (node.input, node.output):
            for at, name in enumerate(held):
                held[at] = names.get(name, name)
    return model


@pytest.fixture(scope="session")
def compressed(compress_inputs: Path) -> Path:
    """The run directory of `eightfold compress net.onnx`, made once."""
    output = compress_inputs / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so small a network INT8 is slower
        compress(
            str(compress_inputs / "net.onnx"),
            str(compress_inputs / "photos"),
            output,
            keep=0.5,
            min_speedup=0.01,
            max_drop=100,
            force=True,
            minutes=0,
            seconds=0.01,
        )
    return output
