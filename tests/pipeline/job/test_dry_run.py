"""What a dry run says is what the run then does, and it writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from eightfold.pipeline.job.dry_run import StepPreview, foresee
from eightfold.pipeline.run import _job, _steps
from eightfold.recipe import recipe_from
from tests.pipeline.job.test_runner import Chain

DEMO = yaml.safe_load((Path(__file__).parents[3] / "recipes" / "demo.yaml").read_text())


def _unlink(name: str) -> Callable[[Chain], None]:
    return lambda chain: (chain.directory / name).unlink()


def _set(step: str, value: int) -> Callable[[Chain], None]:
    return lambda chain: chain.settings.update({step: value})


def _write(name: str) -> Callable[[Chain], None]:
    def write(chain: Chain) -> None:
        (chain.directory / name).write_text("damaged")

    return write


def _forget(name: str) -> Callable[[Chain], None]:
    """As records were when they held the key alone."""

    def forget(chain: Chain) -> None:
        path = chain.directory / "steps" / f"{name}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({key: record[key] for key in ("key", "outputs")}))
        chain.settings[name] = 2

    return forget


CHANGES: dict[str, tuple[Callable[[Chain], None], list[str]]] = {
    "nothing": (lambda _: None, ["a: up to date", "b: up to date", "c: up to date"]),
    "output": (
        _unlink("b.txt"),
        ["a: up to date", "b: would run (b.txt is missing)", "c: may run (reads b.txt, which 'b' would make)"],
    ),
    "damage": (
        _write("b.txt"),
        ["a: up to date", "b: would run (b.txt was changed)", "c: may run (reads b.txt, which 'b' would make)"],
    ),
    "settings": (
        _set("b", 2),
        ["a: up to date", "b: would run (changed: n 1 -> 2)", "c: may run (reads b.txt, which 'b' would make)"],
    ),
    "last": (_set("c", 2), ["a: up to date", "b: up to date", "c: would run (changed: n 1 -> 2)"]),
    "record": (_unlink("steps/c.json"), ["a: up to date", "b: up to date", "c: would run (not done yet)"]),
    "old record": (
        _forget("c"),
        ["a: up to date", "b: up to date", "c: would run (its settings or what it reads changed)"],
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_run_does_what_was_foreseen(tmp_path: Path, change: Callable[[Chain], None], expected: list[str]) -> None:
    chain = Chain(tmp_path)
    chain.run()
    change(chain)
    before = _content(tmp_path)
    outlook = foresee(tmp_path, chain.steps())
    assert [step.describe() for step in outlook] == expected
    assert _content(tmp_path) == before
    ran = set(chain.run())
    assert _in(outlook, "would run") <= ran <= _in(outlook, "would run") | _in(outlook, "may run")


def test_an_input_that_no_step_makes_is_named(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.run()
    (tmp_path / "b.txt").write_text("other")
    (step,) = foresee(tmp_path, chain.steps()[2:])
    assert step.describe() == "c: would run (changed: b.txt)"


def test_before_the_first_run(tmp_path: Path) -> None:
    outlook = foresee(tmp_path / "run", Chain(tmp_path / "run").steps())
    assert [step.describe() for step in outlook] == [f"{name}: would run (not done yet)" for name in "abc"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"export": {"batches": [1, 8], "sizes": [[48, 48]], "preprocess": "in-graph"}},
        {"quantize": {"targets": ["cpu-x86", "rtx:sm86"], "equalize": True, "max_drop": 0.5, "form": "qdq"}},
    ],
)
def test_what_a_step_reads_is_what_an_earlier_one_writes(changes: dict[str, Any], tmp_path: Path) -> None:
    """By the same name, which is how one that would be made anew is known."""
    made: set[str] = set()
    for step in _steps(_job(recipe_from({**DEMO, **changes}), tmp_path)):
        assert made.issuperset(step.inputs)
        made.update(step.outputs)


def _in(outlook: tuple[StepPreview, ...], state: str) -> set[str]:
    return {step.name for step in outlook if step.state == state}


def _content(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
