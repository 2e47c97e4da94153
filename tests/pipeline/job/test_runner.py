"""The step runner: what changed is redone, what did not is skipped, and a kill loses one step at most."""

from __future__ import annotations

import fcntl
from functools import partial
from pathlib import Path

import pytest

from eightfold.errors import EightfoldError
from eightfold.files import digest_of
from eightfold.pipeline.job.dry_run import foresee
from eightfold.pipeline.job.runner import PipelineStep, StepResult, run_steps, stamps

INPUTS: dict[str, tuple[str, ...]] = {"a": (), "b": ("a.txt",), "c": ("b.txt",)}


class Chain:
    """a -> b -> c, each a file that appends its letter to what it read; counts how often each ran."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ran: list[str] = []
        self.settings = {"a": 1, "b": 1, "c": 1}

    def steps(self) -> list[PipelineStep]:
        return [
            PipelineStep(name, INPUTS[name], (f"{name}.txt",), {"n": self.settings[name]}, partial(self.act, name))
            for name in "abc"
        ]

    def act(self, name: str, scratch: Path) -> str:
        self.ran.append(name)
        (scratch / "checkpoint").touch()
        text = "".join((self.directory / path).read_text() for path in INPUTS[name])
        (self.directory / f"{name}.txt").write_text(text + name * min(2, self.settings[name]))
        return f"wrote {name}"

    def run(self) -> list[str]:
        self.ran = []
        run_steps(self.directory, self.steps(), lambda _: None)
        return self.ran


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    chain = Chain(tmp_path)
    assert chain.run() == ["a", "b", "c"]
    return chain


def test_a_second_run_does_nothing(chain: Chain) -> None:
    assert chain.run() == []


def test_a_deleted_output_redoes_only_its_step_when_it_comes_out_the_same(chain: Chain) -> None:
    (chain.directory / "b.txt").unlink()
    assert chain.run() == ["b"]


def test_a_damaged_output_is_made_again(chain: Chain) -> None:
    (chain.directory / "b.txt").write_text("damaged")
    assert chain.run() == ["b"]
    assert (chain.directory / "c.txt").read_text() == "abc"


def test_changed_settings_redo_what_depends_on_the_result(chain: Chain) -> None:
    chain.settings["b"] = 2
    assert chain.run() == ["b", "c"]
    assert (chain.directory / "c.txt").read_text() == "abbc"


def test_changed_settings_that_change_nothing_stop_there(chain: Chain) -> None:
    chain.settings["b"] = 2
    chain.run()
    chain.settings["b"] = 3
    assert chain.run() == ["b"]


@pytest.mark.parametrize("content", ["[", "[]", '{"key": 1}', '{"key": 1, "outputs": [], "stamp": 2}'])
def test_a_damaged_record_only_redoes_its_step(chain: Chain, content: str) -> None:
    (chain.directory / "steps" / "c.json").write_text(content)
    assert stamps(chain.directory) == {}
    assert [step.state for step in foresee(chain.directory, chain.steps())] == ["up to date", "up to date", "would run"]
    assert chain.run() == ["c"]


def test_results_say_what_was_skipped(chain: Chain) -> None:
    results: list[StepResult | str] = []
    run_steps(chain.directory, chain.steps(), results.append)
    assert [(r.name, r.skipped, r.said) for r in results if isinstance(r, StepResult)] == [
        (name, True, f"wrote {name}") for name in "abc"
    ]


def test_a_step_that_forgets_an_output_is_a_defect(tmp_path: Path) -> None:
    step = PipelineStep("x", (), ("x.txt",), {}, lambda _: "nothing")
    with pytest.raises(EightfoldError, match=r"step x did not write x\.txt"):
        run_steps(tmp_path, [step], lambda _: None)


def test_unfinished_work_survives_a_kill_and_only_for_the_same_work(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def killed(scratch: Path) -> str:
        seen.append([path.name for path in scratch.iterdir()])
        (scratch / "epoch1").touch()
        raise KeyboardInterrupt

    for settings in (1, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            run_steps(tmp_path, [PipelineStep("x", (), (), {"n": settings}, killed)], lambda _: None)
    assert seen == [[], ["epoch1"], []]


def test_what_a_killed_run_had_begun_to_write_goes_with_the_next_run(chain: Chain) -> None:
    begun = chain.directory / ".b-0123abc_.tmp.txt"  # the name that atomic_path gives
    begun.write_text("half")
    chain.run()
    assert not begun.exists()


def test_a_kill_behind_the_record_leaves_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr("eightfold.pipeline.job.runner._remove_scratch", lambda *_: None)
        chain.run()
    assert len(list((tmp_path / "steps").glob("?-*/checkpoint"))) == 3
    assert chain.run() == []
    test_finished_work_leaves_no_scratch(chain)


def test_finished_work_leaves_no_scratch(chain: Chain) -> None:
    assert sorted(path.name for path in (chain.directory / "steps").iterdir()) == ["a.json", "b.json", "c.json"]


def test_two_runs_in_one_directory_are_refused(chain: Chain) -> None:
    with (chain.directory / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(EightfoldError, match="another run is at work"):
            chain.run()


def test_a_folder_is_digested_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_text("1")
    first = digest_of(tmp_path / "d")
    (tmp_path / "d" / "a").rename(tmp_path / "d" / "b")
    second = digest_of(tmp_path / "d")
    (tmp_path / "d" / "b").write_text("2")
    assert len({first, second, digest_of(tmp_path / "d"), None}) == 4
    assert digest_of(tmp_path / "absent") is None


def test_a_stamp_stays_with_what_was_done_under_it(chain: Chain) -> None:
    """A new commit is no reason to do anything again, and what was done before stays under the old one."""
    (chain.directory / "b.txt").unlink()
    run_steps(chain.directory, chain.steps(), lambda _: None, {"commit": "new"})
    assert stamps(chain.directory) == {"b": {"commit": "new"}}
    run_steps(chain.directory, chain.steps(), lambda _: None, {"commit": "newer"})
    assert stamps(chain.directory) == {"b": {"commit": "new"}}
