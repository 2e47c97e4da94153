from __future__ import annotations

import platform
from pathlib import Path

import pytest

from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import BackendError, UsageError
from eightfold.onnx_graph.tensor_specs import TensorSpec
from eightfold.runtime.backends.targets import CPU_TARGETS, runs_here
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyRow, LatencyTable
from eightfold.runtime.bundle.manifest import Artifact, Format, Precision
from eightfold.runtime.bundle.sizes import Size, size_text
from eightfold.runtime.predict.select_artifact import ArtifactRequest, select_artifact

HERE = CPU_TARGETS[platform.machine()]
PREPROCESS = Preprocess(height=8, width=8)


def artifact(
    variant: str = "pruned",
    precision: Precision = "fp32",
    target: str = "any",
    batch: int = 1,
    format: Format = "onnx",
    size: Size = (8, 8),
) -> Artifact:
    at = "" if size == (8, 8) else f"{size_text(size)}-"
    return Artifact(
        id=f"{variant}-{precision}-{target}-{at}b{batch}",
        variant=variant,
        format=format,
        precision=precision,
        target=target,
        batch=batch,
        path="x",
        inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 3, *size)),),
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
    choice = select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest())
    assert (choice.variant, choice.precision, choice.target) == ("pruned", "int8", HERE)
    assert choice.reason == "by rule before fp32 on onnxruntime; none was measured on this device"


def test_a_graph_quantized_for_another_target_is_not_run() -> None:
    other = "cpu-arm" if HERE == "cpu-x86" else "cpu-x86"
    assert not runs_here(artifact(precision="int8", target=other), "onnxruntime")
    assert not runs_here(artifact(precision="int8", target="tensorrt"), "onnxruntime")


def test_an_engine_comes_first_where_tensorrt_works() -> None:
    assert (
        select_artifact(ALL, PREPROCESS, ["onnxruntime", "tensorrt-rtx"], ArtifactRequest()).backend == "tensorrt-rtx"
    )


def test_on_a_gpu_the_rule_goes_from_engines_to_providers_to_the_cpu() -> None:
    graphs = [artifact(), artifact(precision="int8", target=HERE)]
    everywhere = ["openvino", "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt"]
    assert select_artifact(graphs, PREPROCESS, everywhere, ArtifactRequest()).backend == "onnxruntime-tensorrt"
    assert select_artifact(graphs, PREPROCESS, everywhere[:3], ArtifactRequest()).backend == "onnxruntime-cuda"
    assert select_artifact(graphs, PREPROCESS, everywhere[:2], ArtifactRequest()).backend == "onnxruntime"
    assert (
        select_artifact(
            [*graphs, artifact(target="tensorrt:10.3", format="engine")],
            PREPROCESS,
            [*everywhere, "tensorrt"],
            ArtifactRequest(),
        ).backend
        == "tensorrt"
    )


def test_a_signed_graph_for_tensorrt_goes_to_its_provider_alone() -> None:
    graphs = [artifact(), artifact(precision="int8", target="tensorrt")]
    assert select_artifact(graphs, PREPROCESS, ["onnxruntime-cuda"], ArtifactRequest()).precision == "fp32"
    assert (
        select_artifact(graphs, PREPROCESS, ["onnxruntime-cuda", "onnxruntime-tensorrt"], ArtifactRequest()).precision
        == "int8"
    )


def test_a_table_overrules_the_rule_between_providers_too(bundle_path: Path) -> None:
    table = _table(bundle_path, {"pruned-fp32-any-b1": 1.0})
    row = table.rows[0]
    on_gpu = row.model_copy(
        update={"backend": "onnxruntime-cuda", "timing": row.timing.model_copy(update={"mean_ms": 3.0})}
    )
    table = table.model_copy(update={"rows": (row, on_gpu)})
    choice = select_artifact([artifact()], PREPROCESS, ["onnxruntime", "onnxruntime-cuda"], ArtifactRequest(), table)
    assert (choice.backend, choice.reason[:11]) == ("onnxruntime", "the fastest")


def test_batches_are_collected_smallest_first() -> None:
    assert select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(precision="fp32")).batches == (1, 4)


def test_a_batch_leaves_only_networks_that_have_it() -> None:
    choice = select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(batch=4))
    assert (choice.precision, choice.batches) == ("fp32", (4,))


def test_the_baseline_runs_when_asked_for() -> None:
    assert select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(variant="baseline")).variant == "baseline"


def test_the_baseline_runs_when_alone() -> None:
    assert select_artifact([artifact("baseline")], PREPROCESS, ["onnxruntime"], ArtifactRequest()).variant == "baseline"


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(
        UsageError,
        match=r"nothing in this bundle has precision 'fp16'; allowed: baseline fp32 on onnxruntime, batch 1/4",
    ):
        select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(precision="fp16"))


def test_nothing_for_this_machine() -> None:
    engines = [artifact(target="rtx:sm86", format="engine")]
    with pytest.raises(BackendError, match=r"it holds engine for rtx:sm86; .*run: eightfold doctor"):
        select_artifact(engines, PREPROCESS, ["onnxruntime"], ArtifactRequest())


def _table(bundle_path: Path, times_ms: dict[str, float]) -> LatencyTable:
    """A measured table whose times are replaced."""
    options = BenchOptions(schedule=Schedule(seconds=0.01, rounds=3), memory=False)
    path = bundle_path / "onnx/pruned-b1.onnx"
    table = compare_latency([Candidate("x", path, 1)], options=options)
    row = table.rows[0]
    return table.model_copy(update={"rows": tuple(_row(row, name, time) for name, time in times_ms.items())})


def _row(row: LatencyRow, name: str, mean_ms: float) -> LatencyRow:
    timing = row.timing.model_copy(update={"mean_ms": mean_ms})
    return row.model_copy(update={"artifact": name, "name": name, "timing": timing, "start_p50_ms": ()})


def test_the_median_of_starts_counts_where_there_are_some(bundle_path: Path) -> None:
    """A stall in one start moves its mean, and not the choice."""
    table = _table(bundle_path, {"pruned-fp32-any-b1": 1.0, f"pruned-int8-{HERE}-b1": 9.0})
    fp32, int8 = table.rows
    table = table.model_copy(update={"rows": (fp32, int8.model_copy(update={"start_p50_ms": (20.0, 0.6, 0.4, 0.1)}))})
    choice = select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(), table)
    assert choice.precision == "int8"
    assert choice.reason.endswith("0.50 ms per image")


def test_a_table_of_this_device_overrules_the_rule(bundle_path: Path) -> None:
    table = _table(bundle_path, {"pruned-fp32-any-b1": 1.0, f"pruned-int8-{HERE}-b1": 2.0, "baseline-fp32-any-b1": 0.1})
    choice = select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(), table)
    assert choice.precision == "fp32"
    assert choice.reason == "the fastest in the bundle's table for this device, 1.00 ms per image"


def test_a_table_that_knows_none_of_them_is_left_aside(bundle_path: Path) -> None:
    choice = select_artifact(ALL, PREPROCESS, ["onnxruntime"], ArtifactRequest(), _table(bundle_path, {"other": 1.0}))
    assert "by rule" in choice.reason


WIDE = (8, 16)
SIZES = [
    artifact(precision="int8", target=HERE, size=WIDE),
    artifact(),
    artifact(batch=4),
    artifact(size=WIDE),
    artifact(batch=2, size=WIDE),
]


def test_the_default_size_comes_before_what_is_faster(bundle_path: Path) -> None:
    table = _table(bundle_path, {"pruned-fp32-any-b1": 9.0, f"pruned-int8-{HERE}-8x16-b1": 1.0})
    for measured in (None, table):
        choice = select_artifact(SIZES, PREPROCESS, ["onnxruntime"], ArtifactRequest(), measured)
        assert (choice.size, choice.precision, choice.batches) == ((8, 8), "fp32", (1, 4))
    assert choice.describe().startswith("pruned fp32 on onnxruntime at 8x8 (batch 1, 4): the fastest in")


def test_a_size_that_is_asked_for_is_the_only_one() -> None:
    choice = select_artifact(SIZES, PREPROCESS, ["onnxruntime"], ArtifactRequest(size=WIDE))
    assert (choice.size, choice.precision) == (WIDE, "int8")
    assert choice.reason == "by rule before fp32 on onnxruntime; none was measured on this device"
    assert select_artifact(
        SIZES, PREPROCESS, ["onnxruntime"], ArtifactRequest(size=WIDE, precision="fp32")
    ).batches == (1, 2)


def test_sizes_compete_where_none_that_fits_is_the_default() -> None:
    small = [artifact(size=(4, 4)), *SIZES]
    choice = select_artifact(small, PREPROCESS, ["onnxruntime"], ArtifactRequest(batch=2))
    assert (choice.size, choice.reason) == (WIDE, "the only one that fits")
    other = PREPROCESS.at_size(32, 32)
    choice = select_artifact(small, other, ["onnxruntime"], ArtifactRequest(precision="fp32"))
    assert choice.describe() == (
        "pruned fp32 on onnxruntime at 4x4 (batch 1): by rule before fp32 on onnxruntime at 8x8, "
        "fp32 on onnxruntime at 8x16; none was measured on this device"
    )


def test_a_size_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(UsageError, match=r"has size '9x9'; allowed: .*at 8x16, batch 1; .*at 8x8, batch 1/4; "):
        select_artifact(SIZES, PREPROCESS, ["onnxruntime"], ArtifactRequest(size=(9, 9)))
    with pytest.raises(UsageError, match=r"has size '9x9'; allowed: pruned fp32 on onnxruntime at 8x8, batch 1$"):
        select_artifact([artifact()], PREPROCESS, ["onnxruntime"], ArtifactRequest(size=(9, 9)))


def test_a_network_without_images_has_no_size() -> None:
    words = artifact().model_copy(update={"inputs": (TensorSpec(name="words", dtype="int64", shape=(1, 8)),)})
    choice = select_artifact([words], PREPROCESS, ["onnxruntime"], ArtifactRequest())
    assert (choice.size, choice.describe()) == (None, "pruned fp32 on onnxruntime (batch 1): the only one that fits")
