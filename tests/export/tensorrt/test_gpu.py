"""What only a machine with a GPU can tell: an engine built here runs here and answers as its graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from eightfold.export.onnx_export import export_onnx
from eightfold.export.tensorrt.build import EnginePrecision, build_engine
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.verify import run_onnx
from eightfold.extras import installed
from tests.export.networks import images, small_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU here"),
    pytest.mark.skipif(not installed("tensorrt"), reason="TensorRT is not installed"),
]


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-2), ("fp16", 5e-2)])
def test_an_engine_answers_as_its_graph(tmp_path: Path, precision: EnginePrecision, error: float) -> None:
    from eightfold.runtime.backends import BACKENDS
    from eightfold.runtime.backends.base import SessionOptions

    network = export_onnx(small_net(), tmp_path / "net.onnx", batch=1, image_size=16)
    options = BuildOptions(workspace_bytes=1 << 28, timing_cache=tmp_path / "times.cache")
    engine = build_engine(network, tmp_path / "net.engine", target="tensorrt", precision=precision, options=options)
    slot = BACKENDS["tensorrt"].open(engine, SessionOptions()).new_slot()
    slot.inputs["images"][...] = images()
    slot.run()
    np.testing.assert_allclose(slot.outputs["logits"], run_onnx(network, {"images": images()})["logits"], atol=error)
