"""The real TensorRT on a real GPU: `make test-gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eightfold.export.tensorrt.build import build_engine
from eightfold.runtime.backends import BACKENDS, open_session
from eightfold.runtime.backends.cuda_memory import cuda_absent, open_cuda

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_absent() is not None, reason=f"no usable GPU: {cuda_absent()}"),
]


@pytest.fixture(scope="module")
def target() -> tuple[str, str]:
    """(backend, target) of whichever TensorRT is installed."""
    if BACKENDS["tensorrt"].absent() is None:
        return "tensorrt", "tensorrt"
    return "tensorrt-rtx", f"rtx:sm{open_cuda().compute_capability().replace('.', '')}"


def test_an_engine_gives_what_onnxruntime_gives(bundle_path: Path, tmp_path: Path, target: tuple[str, str]) -> None:
    backend, name = target
    onnx = bundle_path / "onnx/pruned-b4.onnx"
    engine: Any = build_engine(onnx, tmp_path / "model.engine", target=name, precision="fp32")
    rows = np.random.default_rng(0).random((4, 3, 8, 8)).astype(np.float32)
    answers = []
    for path, with_backend in ((onnx, "onnxruntime"), (engine, backend)):
        slot = open_session(path, with_backend).new_slot()
        slot.run_on({"images": rows})
        answers.append(slot.outputs["logits"].copy())
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-2, atol=1e-3)


def test_bytes_go_to_the_device_and_back() -> None:
    cuda = open_cuda()
    with cuda.active():
        array = cuda.pinned((1000,), "float32")
        buffer, stream = cuda.allocate(array.nbytes), cuda.stream()
        array[:] = np.arange(1000)
        stream.upload(buffer, array)
        stream.synchronize()
        array[:] = 0
        stream.download(array, buffer)
        stream.synchronize()
    np.testing.assert_array_equal(array, np.arange(1000))
