"""A run keeps out of directories that are not its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eightfold.errors import UsageError
from eightfold.pipeline.run import run
from eightfold.recipe import recipe_from


def test_a_directory_of_other_origin(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match=r"holds other things, such as data; .*; choose another --output"):
        run(recipe_from(tiny_recipe), output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the run directory .* is a file"):
        run(recipe_from(tiny_recipe), output=tmp_path / "file")
