"""The Jetson image as far as it can be checked without building it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile.jetson").read_text().replace("\\\n", " ")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.jetson.yaml").read_text())["services"]
PAGE = (ROOT / "docs" / "jetson.md").read_text()


def test_everything_copied_is_there_and_not_ignored() -> None:
    kept = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copies = re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()[:-1]]
    assert len(sources) >= 4
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in kept, source


@pytest.mark.parametrize("name", ["jetpack4", "jetpack5", "jetpack6", "jetpack7"])
def test_each_jetpack_has_its_arguments(name: str) -> None:
    given = SERVICES[name]["build"]["args"]
    declared = re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE)
    assert set(given) <= set(declared)
    assert f"`{given['BASE_IMAGE']}`" in PAGE
    for value in given.values():
        assert "\n" not in value  # a folded string whose lines did not join
        assert not value.startswith("http") or " " not in value
    release = re.search(r"onnxruntime-linux-aarch64-([\d.]+)\.tgz", given["ONNXRUNTIME_ARCHIVE"])
    assert release
    assert f"release {release[1]}" in PAGE


def test_the_page_builds_for_jetpack_4_as_compose_does() -> None:
    command = PAGE.partition("docker build -f Dockerfile.jetson -t eightfold:jetpack4")[2].partition("\ndocker run")[0]
    told = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    assert told == {name: " ".join(value.split()) for name, value in SERVICES["jetpack4"]["build"]["args"].items()}


def test_the_page_names_every_argument() -> None:
    for argument in re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE):
        assert f"`{argument}`" in PAGE, argument


@pytest.fixture
def words(tmp_path: Path) -> Any:
    """words("bench", "b") -> (exit code, the program that the script calls and its arguments, messages)."""
    for program in ("eightfold-run", "eightfold-build"):
        (tmp_path / program).write_text(f'#!/bin/sh\necho {program}\nfor word; do echo "$word"; done\n')
        (tmp_path / program).chmod(0o755)

    def call(*arguments: str) -> tuple[int, list[str], str]:
        script = ["sh", str(ROOT / "docker" / "eightfold"), *arguments]
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return call


@pytest.mark.parametrize(
    ("given", "called"),
    [
        (["predict", "b", "a picture.png"], ["eightfold-run", "b", "a picture.png"]),
        (["bench", "my bundle", "--seconds", "2"], ["eightfold-run", "my bundle", "--seconds", "2", "--bench"]),
        (["bench", "b", "-o", "t.json"], ["eightfold-run", "b", "--json", "t.json", "--bench"]),
        (["bench", "b", "--output", "t.json"], ["eightfold-run", "b", "--json", "t.json", "--bench"]),
        (["build", "m.onnx", "-o", "m.engine"], ["eightfold-build", "m.onnx", "-o", "m.engine"]),
        ([], ["eightfold-run", "--backends"]),
        (["doctor"], ["eightfold-run", "--backends"]),
        (["--version"], ["eightfold-run", "--version"]),
    ],
)
def test_without_python_the_same_words_reach_the_programs(words: Any, given: list[str], called: list[str]) -> None:
    assert words(*given)[:2] == (0, called)


def test_without_python_what_is_not_there_is_wrong_usage(words: Any) -> None:
    code, output, message = words("prune", "x")
    assert (code, output) == (2, [])
    assert "'prune' needs Python 3.10 or newer; here there are: predict, bench, build, doctor" in message
