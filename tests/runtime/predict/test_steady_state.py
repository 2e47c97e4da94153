"""What happens again and again must not cost more each time."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.predict.predictor import Predictor

SIDE = 512
TENSOR_BYTES = 3 * SIDE * SIDE * 4


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[Predictor]:
    """Its input has 3 MB and its output 1 MB, so that whatever is allocated anew can be seen."""
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE]),
        helper.make_tensor_value_info("masks", TensorProto.FLOAT, [1, 3, SIDE // 2, SIDE // 2]),
    ]
    node = helper.make_node("MaxPool", ["images"], ["masks"], kernel_shape=[2, 2], strides=[2, 2])
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    path = write_bundle(
        tmp_path / "bundle",
        name="pool",
        task=Task(kind="segment", decode="segment"),
        preprocess=Preprocess(height=SIDE, width=SIDE),
        artifacts=[onnx_artifact(tmp_path / "m.onnx", id="m", inside="m.onnx", variant="plain")],
        files={"m.onnx": tmp_path / "m.onnx"},
    )
    with Predictor(path, threads=1) as opened:
        yield opened


def test_a_prediction_allocates_no_tensor(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8)
    predictor.predict(image)
    tracemalloc.start()
    try:
        predictor.predict(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The resized picture in uint8, whole and in planes, is half a tensor; the answer is small.
    assert peak < 0.75 * TENSOR_BYTES


def test_memory_does_not_grow(predictor: Predictor) -> None:
    image = np.zeros((300, 200, 3), np.uint8)
    for _ in range(5):
        predictor.predict(image)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            predictor.predict(image)
        gc.collect()  # what waits to be collected is no growth
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000


def test_eight_threads_get_what_one_gets(predictor: Predictor) -> None:
    rows = np.random.default_rng(0).random((8, 1, 3, SIDE, SIDE)).astype(np.float32)
    expected = [predictor.run(row)["masks"] for row in rows]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            if not np.array_equal(predictor.run(rows[number])["masks"], expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
