"""The C++ library under test. `make check-cpp` builds it and says where it is."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size, size_text
from tests.cpp.native import load_library
from tests.cpp.networks import Spread, save_network

LIBRARY_VARIABLE = "EIGHTFOLD_CPP_LIBRARY"


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    path = os.environ.get(LIBRARY_VARIABLE)
    if not path:
        pytest.skip(f"{LIBRARY_VARIABLE} does not name a built libeightfold.so; run: make check-cpp")
    return load_library(Path(path))


MakeBundle = Callable[..., Path]


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """make_bundle(preprocess, task, outputs, batches=(1,)) -> path of a bundle whose network has those outputs.

    Of several `sizes` each has its own network; the preprocessing's is the default, and alone where none are given.
    """

    def make(
        preprocess: Preprocess,
        task: Task,
        outputs: Mapping[str, tuple[int, ...]],
        batches: tuple[int, ...] = (1,),
        spreads: dict[str, Spread] | None = None,
        variants: tuple[str, ...] = ("pruned",),
        sizes: tuple[Size, ...] = (),
    ) -> Path:
        artifacts, files = [], {}
        for variant, size, batch in itertools.product(variants, sizes or [None], batches):
            at = f"-{size_text(size)}" if size else ""
            inside, source = f"onnx/{variant}{at}-b{batch}.onnx", tmp_path / f"{variant}{at}-b{batch}.onnx"
            save_network(source, preprocess.at_size(*size) if size else preprocess, outputs, batch, spreads)
            files[inside] = source
            artifacts.append(onnx_artifact(source, id=f"{variant}-fp32{at}-b{batch}", inside=inside, variant=variant))
        return write_bundle(
            tmp_path / "bundle", name="test", task=task, preprocess=preprocess, artifacts=artifacts, files=files
        )

    return make
