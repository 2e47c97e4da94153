"""`engines.options` reach the builder, and what it lacks is said before anything is trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from eightfold.errors import BuildError, MissingExtraError
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.export.tensorrt.record import EngineRecord
from eightfold.extras import installed
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.runner import PipelineStep
from eightfold.pipeline.run import run
from eightfold.pipeline.steps.export import export_steps
from eightfold.recipe import recipe_from
from eightfold.runtime.bundle.bundle import Bundle


def with_engines(recipe: dict[str, Any], target: str = "rtx:sm86", **options: Any) -> dict[str, Any]:
    return {**recipe, "engines": {"target": target, "precisions": ["fp16"], "batches": [1], "options": options}}


def engine_step(recipe: dict[str, Any], folder: Path) -> PipelineStep:
    (folder / "engines").mkdir(exist_ok=True)  # built already: the builder need not be here
    return export_steps(Job(recipe_from(recipe), folder))[-1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[BuildOptions]:
    """Options of the builds."""
    seen: list[BuildOptions] = []
    monkeypatch.setattr("eightfold.export.tensorrt.build.build_engine", lambda *_, options, **__: seen.append(options))
    monkeypatch.setattr(Job, "first_test_images", lambda *_: None)
    return seen


def test_kernel_times_are_kept_in_the_run_directory(
    tiny_recipe: dict[str, Any], tmp_path: Path, asked: list[BuildOptions]
) -> None:
    recipe = with_engines(tiny_recipe, "tensorrt:10.3", workspace_bytes=1 << 28)
    step = engine_step(recipe, tmp_path)
    assert step.settings["options"] == {"workspace_bytes": 1 << 28}
    step.action(tmp_path)
    for target, given in (("tensorrt", {"timing_cache": "/elsewhere/times"}), ("rtx:sm86", {})):
        engine_step(with_engines(tiny_recipe, target, **given), tmp_path).action(tmp_path)
    assert asked == [
        BuildOptions(workspace_bytes=1 << 28, timing_cache=tmp_path / "timing.cache"),
        BuildOptions(timing_cache=Path("/elsewhere/times")),
        BuildOptions(),
    ]


def test_engines_are_built_again_for_other_options_not_for_another_cache(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    settings = [
        engine_step(with_engines(tiny_recipe, "tensorrt", **options), tmp_path).settings
        for options in ({}, {"timing_cache": "times"}, {"optimization_level": 5})
    ]
    assert settings[0] == settings[1] != settings[2]


@pytest.mark.skipif(installed("tensorrt"), reason="TensorRT is installed")
def test_a_builder_that_is_missing_is_told_before_training(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"tensorrt:10\.3: .*this machine has no NVIDIA GPU.*on the board"):
        run(recipe_from(with_engines(tiny_recipe, "tensorrt:10.3")), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_option_that_the_builder_lacks_is_told_before_training(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError, match=r"TensorRT-RTX [\d.]+ has no CUDNN"):
        run(recipe_from(with_engines(tiny_recipe, tactic_sources=["CUDNN"])), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_they_stand_in_the_bundle(tiny_run: Path, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    shutil.copytree(tiny_run, tmp_path / "run")
    result = run(
        recipe_from(with_engines(tiny_recipe, optimization_level=1, workspace_bytes=1 << 28)), output=tmp_path / "run"
    )
    done = {step.name for step in result.steps if not step.skipped}
    assert "engines" in done
    assert not done & {"data", "baseline", "prune", "calibrate"}
    bundle = Bundle.open(result.bundle)
    (artifact,) = [each for each in bundle.manifest.artifacts if each.format == "engine"]
    record = EngineRecord.load(bundle.file(f"{artifact.path}.json"))
    assert record.options == BuildOptions(optimization_level=1, workspace_bytes=1 << 28)
    assert bundle.manifest.provenance["recipe"]["engines"]["options"]["optimization_level"] == 1
