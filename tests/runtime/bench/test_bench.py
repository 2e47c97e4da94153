from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eightfold.errors import UsageError
from eightfold.pipeline.bench_models import bench
from eightfold.runtime.bench.bench import BenchInterrupted, BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate, candidates_of
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyTable
from eightfold.runtime.bundle.bundle import Bundle

QUICK = BenchOptions(schedule=Schedule(seconds=0.02, rounds=5, block_s=0.005, warmup_s=0.05), memory=False)


def candidates(
    bundle: Path, names: tuple[str, ...] = ("one", "two"), batches: tuple[int, ...] = (1,)
) -> list[Candidate]:
    return [
        Candidate(name, bundle / f"onnx/pruned-b{batch}.onnx", batch, variant=name)
        for name in names
        for batch in batches
    ]


def test_a_row_holds_what_is_needed_to_trust_it(bundle_path: Path) -> None:
    table = compare_latency(candidates(bundle_path), options=QUICK)
    row = table.row("two", 1)
    assert row.backend == "onnxruntime"
    assert row.backend_version == table.versions["onnxruntime"]
    assert row.input_shapes == {"images": (1, 3, 8, 8)}
    assert row.scope == "model"
    assert len(row.sha256) == 64
    assert row.timing.runs >= 5
    assert row.warmup_runs > 0
    assert table.device.cpu.model


def test_the_baseline_is_what_the_others_are_compared_with(bundle_path: Path) -> None:
    table = compare_latency(candidates(bundle_path), baseline="two", options=QUICK)
    assert table.row("two", 1).speedup is None
    interval = table.row("one", 1).speedup
    assert interval is not None
    assert interval.low <= interval.value <= interval.high


def test_a_table_survives_the_round_trip(bundle_path: Path, tmp_path: Path) -> None:
    table = compare_latency(candidates(bundle_path), options=QUICK)
    assert LatencyTable.load(table.save(tmp_path / "latency.json")) == table


def test_the_printed_table(bundle_path: Path) -> None:
    lines = compare_latency(candidates(bundle_path), options=QUICK).describe().splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("batch"))
    assert lines[head + 1].split()[:2] == ["1", "one"]
    assert lines[head + 2].split()[:2] == ["1", "two"]
    assert "[" in lines[head + 2]


def test_a_bundle_is_measured_with_memory(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle(batches=(1,), variants={"baseline": 1.0, "pruned": 10.0})
    table = bench(bundle, backends=["onnxruntime"], seconds=0.01, threads=1)
    assert [row.name for row in table.rows] == ["baseline-fp32", "pruned-fp32"]
    assert table.baseline == "baseline-fp32"
    assert all(row.threads == 1 for row in table.rows)
    assert all((row.peak_memory_bytes or 0) > 1 << 20 for row in table.rows)
    assert table.rows[0].artifact == "baseline-fp32-b1"


def test_networks_that_share_a_name_go_by_their_ids(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    first = bundle.manifest.artifacts[0]
    twin = first.model_copy(update={"id": "twin"})
    both = replace(bundle, manifest=bundle.manifest.model_copy(update={"artifacts": (first, twin)}))
    assert [each.name for each in candidates_of(both, ["onnxruntime"])] == ["pruned-fp32-b1", "twin"]


def test_names_tell_targets_and_backends_apart(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    first = bundle.manifest.artifacts[0]
    for_openvino = first.model_copy(update={"id": "o", "target": "openvino", "precision": "int8"})
    both = replace(bundle, manifest=bundle.manifest.model_copy(update={"artifacts": (first, for_openvino)}))
    found = candidates_of(both, ["onnxruntime", "openvino"])
    assert [each.name for each in found] == ["pruned-fp32", "pruned-fp32 openvino", "pruned-int8-openvino openvino"]


def test_every_backend_of_the_processor_is_measured_by_default(bundle_path: Path) -> None:
    table = bench(bundle_path, batches=[1], seconds=0.01)
    assert [row.name for row in table.rows] == ["pruned-fp32", "pruned-fp32 openvino"]
    table = bench(bundle_path / "onnx/pruned-b1.onnx", seconds=0.01)
    assert [row.name for row in table.rows] == ["pruned-b1 onnxruntime", "pruned-b1 openvino"]


def test_one_onnx_file(bundle_path: Path) -> None:
    table = bench(bundle_path / "onnx/pruned-b4.onnx", backends=["onnxruntime"], seconds=0.01)
    assert [(row.name, row.batch) for row in table.rows] == [("pruned-b4 onnxruntime", 4)]


def test_end_to_end_is_more_than_the_model(bundle_path: Path) -> None:
    model = bench(bundle_path, batches=[1], backends=["onnxruntime"], seconds=0.02)
    whole = bench(bundle_path, batches=[1], backends=["onnxruntime"], seconds=0.02, end_to_end=True)
    assert (model.rows[0].scope, whole.rows[0].scope) == ("model", "end-to-end")


def test_end_to_end_needs_a_bundle(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="pruned-b1 onnxruntime comes from no bundle"):
        bench(bundle_path / "onnx/pruned-b1.onnx", backends=["onnxruntime"], seconds=0.01, end_to_end=True)


def test_a_batch_that_is_not_there(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="batch 3 is not in it; allowed: 1, 4"):
        bench(bundle_path, batches=[3])


def test_an_unknown_backend(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'tflite'; allowed: .*onnxruntime"):
        bench(bundle_path, backends=["tflite"])


def test_an_unknown_baseline(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="no candidate is named 'three'; allowed: one, two"):
        compare_latency(candidates(bundle_path), baseline="three", options=QUICK)


def test_two_candidates_of_one_name(bundle_path: Path) -> None:
    with pytest.raises(UsageError, match="two candidates have one name"):
        compare_latency(candidates(bundle_path, ("one", "one")), options=QUICK)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        bench(tmp_path / "absent.onnx")


def test_ctrl_c_keeps_the_batches_that_were_done(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eightfold.cli.app import main
    from eightfold.runtime.bench import bench as module

    done: list[int] = []
    whole = module._measure_batch

    def measured(candidates: list[Candidate], *rest: object) -> object:
        done.append(candidates[0].batch)
        if len(done) % 2 == 0:
            raise KeyboardInterrupt
        return whole(candidates, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_measure_batch", measured)
    with pytest.raises(BenchInterrupted) as caught:
        bench(bundle_path, batches=[1, 4], backends=["onnxruntime"], sizes=[8], seconds=0.02, threads=1)
    assert {row.batch for row in caught.value.table.rows} == {1}
    out = tmp_path / "table.md"
    words = ["bench", bundle_path, "--batch", 1, "--batch", 4, "--backend", "onnxruntime", "--size", 8, "-o", out]
    monkeypatch.setattr("sys.argv", ["eightfold", *map(str, words), "--seconds", "0.02", "--threads", "1"])
    assert main() == 130
    said = capsys.readouterr()
    assert "p50" in said.out
    assert out.exists()
    assert "interrupted" in said.err.splitlines()[-1]
