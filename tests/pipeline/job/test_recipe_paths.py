"""Files under another spelling of their paths are the same to a run, and a written recipe runs from anywhere."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from eightfold.compress.surgery.source_record import SourceRecord
from eightfold.errors import RecipeError
from eightfold.files import absolute
from eightfold.json_types import JsonDict
from eightfold.pipeline.compress_model import CompressOptions, recipe_for, recipe_text
from eightfold.pipeline.job.dry_run import foresee
from eightfold.pipeline.job.job import Job
from eightfold.pipeline.job.recipe_paths import find_code, from_root
from eightfold.pipeline.job.runner import PipelineStep, run_steps
from eightfold.pipeline.job.step_keys import model_key
from eightfold.pipeline.run import _job, _steps
from eightfold.recipe import Recipe, recipe_from
from eightfold.zoo.sources.registry import source_of

OPTIONS = CompressOptions(minutes=0, batches=(1,), seconds=0.01)
CFG = """[net]
height=32
width=32
channels=3
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
"""


@pytest.fixture
def place(tmp_path: Path, compress_inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with net.onnx and photos/, and links to both."""
    folder = tmp_path / "here"
    folder.mkdir()
    shutil.copy(compress_inputs / "net.onnx", folder)
    shutil.copytree(compress_inputs / "photos", folder / "photos")
    (folder / "sub").mkdir()
    (tmp_path / "linked").symlink_to(folder, target_is_directory=True)
    (folder / "hub").mkdir()
    (folder / "hub" / "net.onnx").symlink_to(folder / "net.onnx")
    (folder / "hub" / "other.onnx").symlink_to("net.onnx")
    monkeypatch.chdir(folder)
    return folder


def steps_of(recipe: Recipe, output: Path) -> list[PipelineStep]:
    return _steps(_job(recipe, output))


def pretend(recipe: Recipe, output: Path) -> None:
    """A finished run, whose steps write files of no content."""

    def write(step: PipelineStep) -> PipelineStep:
        def action(_: Path) -> str:
            for name in step.outputs:
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                (output / name).write_text(step.name)
            return ""

        return dataclasses.replace(step, action=action)

    run_steps(output, [write(step) for step in steps_of(recipe, output)], lambda _: None)


def to_do(recipe: Recipe, output: Path) -> set[str]:
    return {step.name for step in foresee(output, steps_of(recipe, output)) if step.state != "up to date"}


SPELLINGS = {
    "with dots": ("./net.onnx", "./photos/", "./out"),
    "through the folder above": ("sub/../net.onnx", "../here/photos", "sub/../out"),
    "through a linked folder": ("../linked/net.onnx", "../linked/photos", "../linked/out"),
    "a link of the same name": ("hub/net.onnx", "photos", "out"),
    "a pattern": ("net.onnx", "photos/*.png", "out"),
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_another_spelling_of_the_same_files_goes_on(place: Path, spelled: tuple[str, str, str]) -> None:
    output = place / "out"
    pretend(recipe_for("net.onnx", "photos", "out", OPTIONS), output)
    quoted = {"report", "bundle"} if "*" in spelled[1] else set()  # their recipe names what was asked for
    assert to_do(recipe_for(*spelled, OPTIONS), output) <= quoted
    model, images, out = (str(place / text) for text in spelled)
    assert to_do(recipe_for(model, images, out, OPTIONS), output) <= quoted


def test_a_link_of_another_name_changes_what_quotes_the_name_only(place: Path) -> None:
    pretend(recipe_for("net.onnx", "photos", "out", OPTIONS), place / "out")
    assert to_do(recipe_for("hub/other.onnx", "photos", "out", OPTIONS), place / "out") == {"report", "bundle"}


def test_other_content_at_the_same_path_starts_anew(place: Path) -> None:
    pretend(recipe_for("net.onnx", "photos", "out", OPTIONS), place / "out")
    model = onnx.load("net.onnx")
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    onnx.save(model, "net.onnx")
    assert "prune" in to_do(recipe_for("net.onnx", "photos", "out", OPTIONS), place / "out")


def test_a_written_recipe_runs_from_any_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_for("net.onnx", "photos", "out", OPTIONS)
    pretend(recipe, place / "out")
    (place / "out" / "recipe.yaml").write_text(recipe_text(recipe))
    monkeypatch.chdir(place / "sub")
    written = recipe_from(yaml.safe_load((place / "out" / "recipe.yaml").read_text()))
    assert Path(written.output) == place / "out"
    assert to_do(written, Path(written.output)) == set()


@pytest.mark.parametrize(
    ("model", "data", "named"),
    [("net.onnx", "photos", "photos"), ("net.onnx", "mnist", "net.onnx"), ("hf:hub", "mnist", "hub")],
)
def test_files_beside_a_recipe_are_run_from_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, model: str, data: str, named: str
) -> None:
    (place / "r.yaml").write_text(
        yaml.safe_dump({**recipe_of(model).model_dump(mode="json", exclude_defaults=True), "data": {"source": data}})
    )
    monkeypatch.chdir(place / "sub")
    words = f"there is no {named} in the current directory; .*; it lies beside the recipe: cd .*"
    with pytest.raises(RecipeError, match=words):
        _job("../r.yaml", None)


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in a folder that Python searches as the command line does: as the current one."""
    folder = tmp_path / "code"
    (folder / "elsewhere_nets").mkdir(parents=True)
    (folder / "elsewhere_nets" / "__init__.py").touch()
    (folder / "elsewhere_nets" / "small.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten())\n"
    )
    monkeypatch.setattr(sys, "path", [*(entry for entry in sys.path if entry), ""])
    monkeypatch.chdir(folder)
    yield folder
    for name in ("elsewhere_nets", "elsewhere_nets.small"):
        sys.modules.pop(name, None)


def recipe_of(source: str, **model: Any) -> Recipe:
    return recipe_from(
        {
            "name": "own",
            "output": "out",
            "model": {"source": source, **model},
            "data": {"source": "mnist"},
            "preprocess": {"height": 32, "width": 32},
        }
    )


def test_a_recipe_of_own_code_names_its_folder(own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = recipe_of("elsewhere_nets.small:net")
    written, before = from_root(here), model_key(Job(here, tmp_path / "out"))
    assert written.model.code == str(own_code)
    monkeypatch.chdir(tmp_path)
    assert "code" not in source_of("elsewhere_nets.small:net").code("elsewhere_nets.small:net").digests()  # type: ignore[union-attr]  # a function has code
    find_code(written)
    assert model_key(Job(written, tmp_path / "out")) == before
    assert len(before["code"]) == 2


def test_a_folder_of_code_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.code is .*/none, where there is no folder; name the folder"):
        find_code(recipe_of("elsewhere_nets.small:net", code=str(tmp_path / "none")))


def test_the_files_of_a_darknet_network_count_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.cfg").write_text(CFG)
    Path("one.weights").write_bytes(b"1")
    shutil.copy("one.weights", "two.weights")

    def key(text: str) -> JsonDict:
        return model_key(Job(recipe_of(text), Path("out")))

    source = "darknet:net.cfg+one.weights"
    before = key(source)
    assert key(f"darknet:{tmp_path}/net.cfg+./two.weights") == before
    assert set(before["files"]) == {"cfg", "weights"}
    Path("one.weights").write_bytes(b"2")
    assert key(source) != before


def test_a_folder_of_the_name_of_a_network_is_not_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the run's own output."""
    pytest.importorskip("torchvision", reason="the extra [compress] is not installed")
    monkeypatch.chdir(tmp_path)
    before = model_key(Job(recipe_of("resnet18"), Path("resnet18")))
    Path("resnet18").mkdir()
    Path("resnet18", "report.html").touch()
    assert model_key(Job(recipe_of("resnet18"), Path("resnet18"))) == before
    assert from_root(recipe_of("resnet18")).model.source == "resnet18"


def test_a_pruned_folder_finds_its_network_from_any_directory(
    own_code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its record, which says where the command ran."""
    from eightfold.cli.compress.prune import prune
    from eightfold.zoo.sources.registry import load_source

    Path("net.cfg").write_text(CFG)
    with pytest.warns(UserWarning, match="random"):
        prune("darknet:net.cfg", output=tmp_path / "a", size="32")
    prune("elsewhere_nets.small:net", output=tmp_path / "b", size="32")
    assert SourceRecord.load(tmp_path / "a" / "source.json").directory == os.getcwd()  # noqa: PTH109 - the oracle
    monkeypatch.chdir(tmp_path)
    for name in ("elsewhere_nets", "elsewhere_nets.small"):
        sys.modules.pop(name, None)
    with pytest.warns(UserWarning, match="random"):
        assert load_source("a").module is not None
    with pytest.warns(UserWarning, match="imports your code"):
        assert load_source("b").module is not None


def test_absolute_paths_keep_the_name_of_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner", target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert absolute("link") == tmp_path / "link"
    assert absolute("link/../x") == tmp_path / "real" / "x"  # as open() has it
    assert absolute(".") == absolute("real/..") == tmp_path
