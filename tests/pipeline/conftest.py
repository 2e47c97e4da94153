"""A detector that finds what it is shown, and what recipes make of it, made once for all test processes."""

from __future__ import annotations

import copy
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from examples.shapes import ShapeDetector, train, write_part
from safetensors.torch import save_file

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
        "quantize": {"form": "qdq"},
        "bench": {"threads": 1, "seconds_per_row": 0.01},
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
