"""The pages say what the program does: generated ones are in step, commands shown exist, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from docs.generate_reference import command_page, python_page, recipe_page

import eightfold
from eightfold.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")])


def test_the_command_page_is_in_step() -> None:
    assert (ROOT / "docs/cli.md").read_text() == command_page(), "run: make docs"


def test_the_python_page_has_every_public_name() -> None:
    sections = set(re.findall(r"^## `ef\.(\w+)`$", (ROOT / "docs/python.md").read_text(), re.M))
    assert sections == set(eightfold.__all__) - {"__version__"}, "run: make docs"


def test_the_recipe_page_is_in_step() -> None:
    assert (ROOT / "docs/recipes.md").read_text() == recipe_page(), "run: make docs"


def test_every_public_name_has_a_docstring() -> None:
    bare = [line for line in python_page().split("\n## ")[1:] if "```text" not in line]
    assert bare == []


def code_of(page: str) -> str:
    """Code spans, indented and fenced code, one piece a line."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```$", page, re.M | re.S)
    rest = re.sub(r"^```[^\n]*\n.*?^```$", "", page, flags=re.M | re.S)
    return "\n".join([*fenced, *re.findall(r"^ {4}(.*)$", rest, re.M), *re.findall(r"`([^`\n]+)`", rest)])


def commands_shown(page: str) -> Iterator[tuple[str, list[str]]]:
    """(sub-command, options) of each `eightfold ...` in the page's code."""
    for words in re.findall(r"(?:^|; |\$ )(?:\.venv/bin/)?eightfold ([a-z][^\n;#]*)", code_of(page), re.M):
        name, *rest = words.split()
        yield name, [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_the_pages_exist(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    for name, options in commands_shown(page.read_text()):
        assert name in group.commands, f"{page.name} shows eightfold {name}"
        known = {option for parameter in group.commands[name].params for option in parameter.opts} | {"--help"}
        assert set(options) <= known, f"{page.name} shows eightfold {name} {options}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_public_names_on_the_pages_exist(page: Path) -> None:
    shown = set(re.findall(r"\bef\.([A-Za-z_]\w*)", code_of(page.read_text())))
    assert shown <= set(eightfold.__all__)


def test_the_site_builds_and_no_link_is_broken(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/index.html").is_file()
