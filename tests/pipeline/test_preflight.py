"""A recipe that cannot end well is refused before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eightfold.errors import EightfoldError, ImageError, ModelError
from eightfold.pipeline.run import preview_run, run
from eightfold.recipe import recipe_from
from eightfold.zoo.sources.function import FunctionSource
from tests.pipeline.images import write_classes


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("compress", "rule", "globl", "unknown rule 'globl'.*did you mean 'global'"),
        ("compress", "score", "l3", "unknown score 'l3'; allowed: .*, l1, l2, "),
        ("bench", "threads", 9999, "bench.threads is 9999; allowed: 1 to [0-9]+ on this machine"),
        ("model", "weights", "nope.pt", r"no weights file nope\.pt"),
        (
            "model",
            "source",
            "no_such_module:Net",
            r"cannot find no_such_module:Net \(no module",
        ),
        ("model", "source", "tests/pipeline/images.py:Net", r"no module .*; write tests\.pipeline\.images:Net"),
        ("model", "source", "examples.shapes:ShapeDetektor", r"has no 'ShapeDetektor'.*did you mean 'ShapeDetector'\?"),
        ("model", "source", "timm:resnet19", "unknown timm model 'resnet19'.*did you mean"),
        ("model", "source", "resnet19", "unknown model 'resnet19'.*did you mean"),
        ("data", "source", "no_such_folder", "no image folder no_such_folder; allowed: a folder with train/LABEL"),
        ("data", "source", "minst", "unknown data set 'minst'.*did you mean 'mnist'"),
        ("train", "distill", {"logits": 1.0}, r"train\.distill; allowed: compress\.finetune\.distill"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(
    tiny_recipe: dict[str, Any], tmp_path: Path, section: str, key: str, value: object, words: str
) -> None:
    recipe = {**tiny_recipe, section: {**tiny_recipe.get(section, {}), key: value}}
    for carry_out in (preview_run, run):
        with pytest.raises(EightfoldError, match=words):
            carry_out(recipe_from(recipe), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "epochs", "good"), [("mean", 1, False), ("none", 0, False), ("none", 1, True)])
def test_layer_norms_are_refitted_or_trained(
    tiny_recipe: dict[str, Any], tmp_path: Path, method: str, epochs: int, good: bool
) -> None:
    section = {**tiny_recipe["compress"], "layer_norms": True, "compensate": method, "finetune": {"epochs": epochs}}
    recipe = recipe_from({**tiny_recipe, "compress": section})
    if good:
        assert preview_run(recipe, output=tmp_path / "run")
    else:
        with pytest.raises(EightfoldError, match=rf"compress\.compensate is {method}.*; allowed: lsq.*; take lsq"):
            preview_run(recipe, output=tmp_path / "run")


def test_a_named_network_needs_weights_or_training(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    recipe = {**tiny_recipe, "model": {"source": "mobilenet_v2"}, "train": {"epochs": 0}}
    with pytest.raises(EightfoldError, match="neither trains the network nor names its weights"):
        preview_run(recipe_from(recipe), output=tmp_path / "run")


def test_a_mistyped_folder_is_compared_with_its_neighbours(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(tmp_path / "flowers", each=1, size=8)
    monkeypatch.chdir(tmp_path)
    for seen in ("flower", str(tmp_path / "flovers")):
        with pytest.raises(ImageError, match=f"no image folder {seen}; allowed: .*did you mean .*flowers"):
            preview_run(recipe_from({**tiny_recipe, "data": {"source": seen}}), output=tmp_path / "run")


def test_names_that_code_makes_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only running the module would tell."""
    (tmp_path / "making.py").write_text("globals()['Net'] = None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    FunctionSource().check("making:Net")
    with pytest.raises(ModelError, match="cannot find making_not:Net"):
        FunctionSource().check("making_not:Net")
