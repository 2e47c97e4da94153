"""`auto` picks the same in C++ as in Python, and says so in the same words."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.export.bundle.write import onnx_artifact, write_bundle
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.devices.devices import describe_device
from eightfold.runtime.predict.predictor import Predictor
from tests.cpp.native import NativeEngine, NativeError
from tests.cpp.networks import save_network

PREPROCESS = Preprocess(height=32, width=32)
TASK = Task(kind="classify", decode="classify")


@pytest.fixture
def bundle_with(tmp_path: Path) -> Callable[[LatencyTable | None], Path]:
    """Two networks that differ in precision, by name at least, and a table of their times."""

    def make(table: LatencyTable | None) -> Path:
        network = tmp_path / "network.onnx"
        save_network(network, PREPROCESS, {"logits": (3,)}, 1)
        files = {"fp32.onnx": network, "int8.onnx": network}
        documents = {}
        if table is not None:
            table.save(tmp_path / "latency.json")
            files["latency.json"], documents["latency"] = tmp_path / "latency.json", "latency.json"
        artifacts = [
            onnx_artifact(network, id=f"{name}-b1", inside=f"{name}.onnx", variant="pruned").model_copy(
                update={"precision": name}
            )
            for name in ("fp32", "int8")
        ]
        return write_bundle(
            tmp_path / ("measured" if table else "plain"),
            name="test",
            task=TASK,
            preprocess=PREPROCESS,
            artifacts=artifacts,
            files=files,
            documents=documents,
        )

    return make


def measured(bundle: Path, fastest: str) -> LatencyTable:
    table = bench(bundle, batches=[1], backends=["onnxruntime"], seconds=0.05)
    rows = tuple(
        row.model_copy(update={"start_p50_ms": (1.25 if row.precision == fastest else 7.0,)}) for row in table.rows
    )
    return table.model_copy(update={"rows": rows})


def both(library: ctypes.CDLL, bundle: Path) -> tuple[str, str]:
    with Predictor(bundle, backend="onnxruntime") as predictor:
        return NativeEngine(library, bundle, backend="onnxruntime").describe(), predictor.choice.describe()


def test_by_rule(library: ctypes.CDLL, bundle_with: Callable[[LatencyTable | None], Path]) -> None:
    native, python = both(library, bundle_with(None))
    assert native == python
    assert native == (
        "pruned int8 on onnxruntime (batch 1): by rule before fp32 on onnxruntime; none was measured on this device"
    )


def test_by_the_bundles_table(library: ctypes.CDLL, bundle_with: Callable[[LatencyTable | None], Path]) -> None:
    native, python = both(library, bundle_with(measured(bundle_with(None), fastest="fp32")))
    assert (
        native
        == python
        == (
            "pruned fp32 on onnxruntime (batch 1): the fastest in the bundle's table for this device, 1.25 ms per image"
        )
    )


def test_a_table_of_another_machine_does_not_count(
    library: ctypes.CDLL, bundle_with: Callable[[LatencyTable | None], Path]
) -> None:
    table = measured(bundle_with(None), fastest="fp32")
    cpu = describe_device().cpu.model_copy(update={"model": "another"})
    other = table.model_copy(update={"device": table.device.model_copy(update={"cpu": cpu})})
    native, python = both(library, bundle_with(other))
    assert native == python
    assert native.startswith("pruned int8")


def test_a_table_that_is_none(
    library: ctypes.CDLL, bundle_with: Callable[[LatencyTable | None], Path], tmp_path: Path
) -> None:
    table = measured(bundle_with(None), fastest="fp32").model_copy(update={"rows": ()})
    bundle = bundle_with(table)
    (bundle / "latency.json").write_text("x" * (bundle / "latency.json").stat().st_size)
    with pytest.raises(NativeError, match=r"latency\.json differs from its SHA-256"):
        NativeEngine(library, bundle)
