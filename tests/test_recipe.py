"""Recipes: the shipped ones are valid; a wrong key or value is one line that says what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from eightfold.errors import RecipeError
from eightfold.export.tensorrt.options import BuildOptions
from eightfold.recipe import read_recipe, recipe_from

RECIPES = Path(__file__).parents[1] / "recipes"


def demo() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    return data


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def change(data: dict[str, Any], place: str, value: object) -> None:
    *sections, key = place.split(".")
    for section in sections:
        data = data[section]
    data[key] = value


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("colour", "red", r"unknown key colour; allowed: the keys name, output, seed"),
        ("train.epoch", 2, r"unknown key train\.epoch; allowed: the keys epochs, batch"),
        ("compress.multiple", "wide", r"compress\.multiple.*seen 'wide'"),
        ("compress.rounds", 0, r"compress\.rounds.*seen 0"),
        ("compress.finetune.batch", "x", r"compress\.finetune\.batch: input should be a valid integer.*seen 'x'"),
        ("compress.keep_ratio", 1.5, r"compress\.keep_ratio: input should be less than or equal to 1"),
        ("calibrate.method", "best", r"calibrate\.method: no method 'best'; allowed: minmax"),
        ("export.batches", [1, 1], r"export\.batches is \[1, 1\]; allowed: different positive numbers"),
        (
            "export.sizes",
            [[64, 64], [64, 64]],
            r"export\.sizes is \[\[64, 64\], \[64, 64\]\]; allowed: different pairs",
        ),
        ("export.sizes", [[0, 64]], r"export\.sizes is \[\[0, 64\]\]; allowed: different pairs of positive numbers"),
        ("engines.batches", [3], r"engines\.batches has \[3\]; allowed: what export\.batches has"),
        (
            "quantize.targets",
            ["cpu-x86"],
            r"engines asks for int8 on rtx:sm86; allowed: what quantize\.targets has: cpu-x86",
        ),
        ("engines.options", {"level": 3}, r"unknown key engines\.options\.level; allowed: the keys workspace_bytes"),
        ("engines.options", {"optimization_level": 9}, r"engines\.options\.optimization_level: input should be less"),
        (
            "engines.options",
            {"strip_weights": True},
            r"has strip_weights: a bundle takes complete engines only; allowed",
        ),
        ("engines.options", {"ranges": {"x": 1.0}}, r"has ranges: INT8 engines are built from the graphs that"),
        (
            "engines.options",
            {"version_compatible": True},
            r"TensorRT-RTX has no version-compatible engines; build again",
        ),
        ("engines.options", {"dla_core": 0}, r"DLA core 0 for rtx:sm86; allowed: tensorrt-dla"),
        ("engines.options", {"gpu_fallback": False}, r"no fallback to the GPU without an accelerator"),
        ("engines.target", "rtx", r"unknown engine target 'rtx'"),
        ("preprocess.resize", "squash", r"preprocess\.resize: input should be 'stretch'"),
    ],
)
def test_wrong_recipes_are_one_line(place: str, value: object, words: str) -> None:
    data = demo()
    change(data, place, value)
    with pytest.raises(RecipeError, match=words) as caught:
        recipe_from(data)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_multiple_may_be_the_device_s() -> None:
    data = demo()
    change(data, "compress.multiple", "auto")
    assert recipe_from(data, source="a test").compress.multiple == "auto"


def test_a_missing_section_lists_the_sections() -> None:
    data = demo()
    del data["model"]
    with pytest.raises(RecipeError, match=r"missing key model; allowed: the keys name"):
        recipe_from(data)


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [", "is not YAML"), ("- 1\n", "holds list; allowed: the keys name"), ("", "is empty; allowed")],
)
def test_files_that_hold_no_recipe(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match=words):
        read_recipe(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_engines_take_what_a_build_takes() -> None:
    data = demo()
    asked = {"workspace_bytes": 1 << 30, "dla_core": 1, "gpu_fallback": False, "tactic_sources": ["CUDNN"]}
    data["engines"] = {"target": "tensorrt-dla:10.3", "precisions": ["fp16"], "batches": [1], "options": asked}
    engines = recipe_from(data).engines
    assert engines is not None
    assert engines.options == BuildOptions(
        workspace_bytes=1 << 30, dla_core=1, gpu_fallback=False, tactic_sources=("CUDNN",)
    )
