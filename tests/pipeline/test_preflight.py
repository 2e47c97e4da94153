"""A recipe that cannot end well is refused before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eightfold.errors import EightfoldError
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("compress", "rule", "globl", "unknown rule 'globl'.*did you mean 'global'"),
        ("compress", "score", "l3", "unknown score 'l3'; allowed: .*, l1, l2, "),
        ("bench", "threads", 9999, "bench.threads is 9999; allowed: 1 to [0-9]+ on this machine"),
        ("model", "weights", "nope.pt", r"no weights file nope\.pt"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(
    tiny_recipe: dict[str, Any], tmp_path: Path, section: str, key: str, value: object, words: str
) -> None:
    recipe = {**tiny_recipe, section: {**tiny_recipe.get(section, {}), key: value}}
    with pytest.raises(EightfoldError, match=words):
        run(recipe_from(recipe), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
