from __future__ import annotations

import platform
from pathlib import Path

import pytest

from eightfold.errors import BackendError, UsageError
from eightfold.runtime.alternate import Schedule
from eightfold.runtime.bench import BenchOptions, compare_latency
from eightfold.runtime.candidates import Candidate
from eightfold.runtime.choose import Wish, choose
from eightfold.runtime.latency import LatencyRow, LatencyTable
from eightfold.runtime.manifest import Artifact, Format, Precision, TensorSpec
from eightfold.runtime.targets import CPU_TARGETS, runs_here

HERE = CPU_TARGETS[platform.machine()]


def artifact(
    variant: str = "pruned", precision: Precision = "fp32", target: str = "any", batch: int = 1, format: Format = "onnx"
) -> Artifact:
    return Artifact(
        id=f"{variant}-{precision}-{target}-b{batch}",
        variant=variant,
        format=format,
        precision=precision,
        target=target,
        batch=batch,
        path="x",
        inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 3, 8, 8)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(batch, 3)),),
    )


ALL = [
    artifact("baseline"),
    artifact("baseline", batch=4),
    artifact(),
    artifact(batch=4),
    artifact(precision="int8", target=HERE),
    artifact(precision="int8", target="tensorrt"),
    artifact(precision="int8", target="rtx:sm86", format="engine"),
]


def test_by_rule_the_compressed_network_in_the_narrowest_numbers_for_this_machine() -> None:
    choice = choose(ALL, ["onnxruntime"], Wish())
    assert (choice.variant, choice.precision, choice.target) == ("pruned", "int8", HERE)
    assert choice.reason == "by rule before fp32 on onnxruntime; none was measured on this device"


def test_a_graph_quantized_for_another_target_is_not_run() -> None:
    other = "cpu-arm" if HERE == "cpu-x86" else "cpu-x86"
    assert not runs_here(artifact(precision="int8", target=other), "onnxruntime")
    assert not runs_here(artifact(precision="int8", target="tensorrt"), "onnxruntime")


def test_an_engine_comes_first_where_tensorrt_works() -> None:
    assert choose(ALL, ["onnxruntime", "tensorrt-rtx"], Wish()).backend == "tensorrt-rtx"


def test_on_a_gpu_the_rule_goes_from_engines_to_providers_to_the_cpu() -> None:
    graphs = [artifact(), artifact(precision="int8", target=HERE)]
    everywhere = ["openvino", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt"]
    assert choose(graphs, everywhere, Wish()).backend == "onnxruntime-tensorrt"
    assert choose(graphs, everywhere[:3], Wish()).backend == "onnxruntime-cuda"
    assert choose(graphs, everywhere[:2], Wish()).backend == "onnxruntime"
    assert (
        choose([*graphs, artifact(target="tensorrt:10.3", format="engine")], [*everywhere, "tensorrt"], Wish()).backend
        == "tensorrt"
    )


def test_a_signed_graph_for_tensorrt_goes_to_its_provider_alone() -> None:
    graphs = [artifact(), artifact(precision="int8", target="tensorrt")]
    assert choose(graphs, ["onnxruntime-cuda"], Wish()).precision == "fp32"
    assert choose(graphs, ["onnxruntime-cuda", "onnxruntime-tensorrt"], Wish()).precision == "int8"


def test_a_table_overrules_the_rule_between_providers_too(bundle_path: Path) -> None:
    table = _table(bundle_path, {"pruned-fp32-any-b1": 1.0})
    row = table.rows[0]
    on_gpu = row.model_copy(
        update={"backend": "onnxruntime-cuda", "timing": row.timing.model_copy(update={"mean_ms": 3.0})}
    )
    table = table.model_copy(update={"rows": (row, on_gpu)})
    choice = choose([artifact()], ["onnxruntime", "onnxruntime-cuda"], Wish(), table)
    assert (choice.backend, choice.reason[:11]) == ("onnxruntime", "the fastest")


def test_batches_are_collected_smallest_first() -> None:
    assert choose(ALL, ["onnxruntime"], Wish(precision="fp32")).batches == (1, 4)


def test_a_batch_leaves_only_networks_that_have_it() -> None:
    choice = choose(ALL, ["onnxruntime"], Wish(batch=4))
    assert (choice.precision, choice.batches) == ("fp32", (4,))


def test_the_baseline_runs_when_asked_for() -> None:
    assert choose(ALL, ["onnxruntime"], Wish(variant="baseline")).variant == "baseline"


def test_the_baseline_runs_when_alone() -> None:
    assert choose([artifact("baseline")], ["onnxruntime"], Wish()).variant == "baseline"


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(
        UsageError,
        match=r"nothing in this bundle has precision 'fp16'; allowed: baseline fp32 on onnxruntime, batch 1/4",
    ):
        choose(ALL, ["onnxruntime"], Wish(precision="fp16"))


def test_nothing_for_this_machine() -> None:
    engines = [artifact(target="rtx:sm86", format="engine")]
    with pytest.raises(BackendError, match=r"it holds engine for rtx:sm86; .*run: eightfold doctor"):
        choose(engines, ["onnxruntime"], Wish())


def _table(bundle_path: Path, times_ms: dict[str, float]) -> LatencyTable:
    """A measured table whose times are replaced."""
    options = BenchOptions(schedule=Schedule(seconds=0.01, rounds=3), memory=False)
    path = bundle_path / "onnx/pruned-b1.onnx"
    table = compare_latency([Candidate("x", path, 1)], options=options)
    row = table.rows[0]
    return table.model_copy(update={"rows": tuple(_row(row, name, time) for name, time in times_ms.items())})


def _row(row: LatencyRow, name: str, mean_ms: float) -> LatencyRow:
    timing = row.timing.model_copy(update={"mean_ms": mean_ms})
    return row.model_copy(update={"artifact": name, "name": name, "timing": timing})


def test_a_table_of_this_device_overrules_the_rule(bundle_path: Path) -> None:
    table = _table(bundle_path, {"pruned-fp32-any-b1": 1.0, f"pruned-int8-{HERE}-b1": 2.0, "baseline-fp32-any-b1": 0.1})
    choice = choose(ALL, ["onnxruntime"], Wish(), table)
    assert choice.precision == "fp32"
    assert choice.reason == "the fastest in the bundle's table for this device, 1.00 ms per image"


def test_a_table_that_knows_none_of_them_is_left_aside(bundle_path: Path) -> None:
    choice = choose(ALL, ["onnxruntime"], Wish(), _table(bundle_path, {"other": 1.0}))
    assert "by rule" in choice.reason
