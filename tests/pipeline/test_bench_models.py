"""`bench` of several subjects: one table, torch as a row, what does not fit as a row, saved after each batch."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import eightfold as ef
from eightfold.errors import BackendError, ModelError, UsageError
from eightfold.pipeline import bench_models
from eightfold.runtime.bench import bench as bench_module
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bench.peak_memory import MIB, MemoryProbe, estimated_bytes, probe_memory, refusal
from eightfold.zoo.sources.registry import load_source

NET = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
def large():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 5))
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bench_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    return tmp_path


def test_networks_and_files_are_rows_of_one_table(own_code: Path) -> None:
    onnx = ef.export_onnx(nn.Conv2d(3, 4, 3), own_code / "one.onnx", batch=1, image_size=16)
    names = ("onnxruntime", "torch")
    table = ef.bench(
        "bench_nets:net",
        "bench_nets:large",
        onnx,
        sizes=None,
        backends=names,
        threads=1,
        seconds=0.01,
        save=own_code / "t.json",
    )
    assert [row.name for row in table.rows] == [
        "net onnxruntime",
        "net torch",
        "large onnxruntime",
        "large torch",
        "one onnxruntime",
    ]
    assert table.rows[1].backend_version == torch.__version__
    assert table.rows[1].peak_memory_bytes  # measured in a process of its own, which registers the backend again
    assert table.rows[2].speedup is not None
    assert LatencyTable.load(own_code / "t.json") == table


def test_files_of_one_name_and_batches_that_one_lacks(tmp_path: Path) -> None:
    """`before/model.onnx` beside `after/model.onnx` is what people compare."""
    paths = [tmp_path / "before" / "model.onnx", tmp_path / "after" / "model.onnx"]
    for batch, path in enumerate(paths, 1):
        path.parent.mkdir()
        ef.export_onnx(nn.Conv2d(3, 4, 3), path, batch=batch, image_size=16)
    table = ef.bench(*paths, batches=[1, 2], backends=["onnxruntime"], threads=1, seconds=0.01)
    names = ["before/model.onnx onnxruntime", "after/model.onnx onnxruntime"]
    assert [(row.name, row.batch) for row in table.rows] == [(names[0], 1), (names[1], 2)]
    assert [(row.name, row.batch, row.reason) for row in table.missing] == [
        (names[0], 2, "has batch 1 only"),
        (names[1], 1, "has batch 2 only"),
    ]


def test_a_batch_that_does_not_fit_is_a_row(own_code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two batches the second is killed; the first is measured, and was saved before."""

    def probe(path: Path, backend: str, threads: int | None = None) -> MemoryProbe:
        return MemoryProbe(MIB) if "b1" in path.name else MemoryProbe(failed="does not fit: needs more than 9 MiB")

    monkeypatch.setattr(bench_module, "probe_memory", probe)
    table = ef.bench("bench_nets:net", batches=[1, 4], backends=["onnxruntime"], seconds=0.01, save=own_code / "t.json")
    assert [(row.name, row.batch) for row in table.rows] == [("net onnxruntime", 1)]
    assert [(row.name, row.batch) for row in table.missing] == [("net onnxruntime", 4)]
    assert "net onnxruntime, batch 4: does not fit: needs more than 9 MiB" in table.describe()
    assert LatencyTable.load(own_code / "t.json") == table
    with pytest.raises(BackendError, match="net onnxruntime at batch 4: does not fit"):
        ef.bench("bench_nets:net", batches=[4], backends=["onnxruntime"], seconds=0.01)


def test_memory_is_foreseen_by_the_line_through_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert estimated_bytes([(1, 100)], 8) is None
    assert estimated_bytes([(1, 100), (2, 150)], 8) == 450
    monkeypatch.setattr("eightfold.runtime.bench.peak_memory.free_bytes", lambda: 100 * MIB)
    assert refusal(200 * MIB) == "does not fit: needs about 200 MiB, and 100 MiB are free"
    assert refusal(90 * MIB) == refusal(None) == ""


def test_a_file_that_raises_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"x")
    found = probe_memory(tmp_path / "broken.onnx", "onnxruntime")
    assert found.peak_bytes is None
    assert "onnxruntime cannot load" in found.failed


def test_a_killed_process_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Python that kills itself, as the kernel kills what takes too much."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    assert "does not fit: needs more than" in probe_memory(tmp_path / "x.onnx", "onnxruntime").failed


def test_a_file_of_any_batch_and_size_is_fixed_first(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    path = ef.export_onnx(network, tmp_path / "any.onnx", batch=1, image_size=16)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"axis{axis}_{value.name}"
    onnx.save(model, path)
    options = {"backends": ["onnxruntime"], "threads": 1, "seconds": 0.01}
    table = ef.bench(path, sizes=[16], batches=[1, 2], **options)
    assert [(row.name, row.batch, row.input_shapes["images"]) for row in table.rows] == [
        ("any onnxruntime", batch, (batch, 3, 16, 16)) for batch in (1, 2)
    ]


def test_options_of_a_named_network_leave_others_alone(own_code: Path) -> None:
    """The original, which needs its weights, beside a network that has its own."""
    torch.manual_seed(0)
    torch.save(load_source("bench_nets:net").module.state_dict(), own_code / "w.pt")
    path = ef.export_onnx(nn.Conv2d(3, 4, 3), own_code / "any.onnx", batch=1, image_size=224)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "any"
    onnx.save(model, path)
    given = bench_models.NetworkOptions(weights=own_code / "w.pt")
    table = ef.bench(path, "bench_nets:net", networks=given, backends=["onnxruntime"], threads=1, seconds=0.01)
    assert [row.name for row in table.rows] == ["any onnxruntime", "net onnxruntime"]
    with pytest.raises(UsageError, match="weights or a number of classes beside"):
        ef.bench(path, networks=given)


def test_further_inputs_of_a_network_are_passed_on(own_code: Path) -> None:
    asked = bench_models.NetworkOptions(inputs={"mode": 1})
    with pytest.raises(ModelError, match="forward has no argument 'mode'"):
        ef.bench("bench_nets:net", networks=asked, backends=["torch"])


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 subjects on ssh://board; allowed: one bundle"):
        ef.bench("a", "b", device="ssh://board")
    with pytest.raises(UsageError, match="nothing to measure"):
        ef.bench()
    assert bench_models.is_network("resnet18")
    assert not bench_models.is_network(tmp_path / "x.onnx")


def test_a_file_does_not_run_in_torch(own_code: Path) -> None:
    """Beside a network that does, its row would be missing without a word."""
    path = ef.export_onnx(load_source("bench_nets:net").module, own_code / "net.onnx", batch=1, image_size=32)
    words = r"net\.onnx does not run on torch, which takes networks .*; allowed: onnxruntime.* here; leave --backend"
    for subjects in ([path], ["bench_nets:net", path]):
        with pytest.raises(UsageError, match=words):
            ef.bench(*subjects, backends=["torch"], seconds=0.01)
