from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import eightfold
from eightfold.export.bundle.commits import commits

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="the oracle, git, is not installed")


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null")
    done = subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of whoever runs the tests from a hook
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "project"
    (folder / "recipes").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "model.py").write_text("x = 1\n")
    git(folder, "add", "model.py")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_of_the_project_is_that_of_git(project: Path) -> None:
    """The oracle is git."""
    head = git(project, "rev-parse", "HEAD")
    assert commits(project / "recipes")["project"] == {"commit": head, "dirty": False}


def test_changed_files_are_told_and_new_ones_are_not(project: Path) -> None:
    (project / "runs.log").write_text("new")
    assert commits(project)["project"]["dirty"] is False
    (project / "model.py").write_text("x = 2\n")
    assert commits(project)["project"]["dirty"] is True


@pytest.mark.parametrize("how", ["packed", "detached", "linked", "in a folder of names"])
def test_wherever_git_keeps_it(project: Path, tmp_path: Path, how: str) -> None:
    head = git(project, "rev-parse", "HEAD")
    where = project
    if how == "packed":
        git(project, "pack-refs", "--all")
    elif how == "detached":
        git(project, "checkout", "-q", "--detach")
    elif how == "linked":
        where = tmp_path / "linked"
        git(project, "worktree", "add", "-q", str(where))
        git(project, "pack-refs", "--all")
    else:
        git(project, "checkout", "-qb", "feature/one")
    assert commits(where)["project"]["commit"] == head


def test_without_git_nothing_is_known(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "project" not in commits(project)


def test_changes_that_git_does_not_tell_are_left_out(project: Path) -> None:
    (project / ".git" / "index").write_bytes(b"damaged")
    assert commits(project)["project"] == {"commit": git(project, "rev-parse", "HEAD")}


def test_no_work_tree_and_no_commit_yet(tmp_path: Path) -> None:
    assert "project" not in commits(tmp_path)
    git(tmp_path, "init", "-q")
    assert "project" not in commits(tmp_path)


@pytest.mark.parametrize("content", ["", "ref: refs/heads/none", "ref: ../../secret", "\xff\xfe", "0" * 39])
def test_a_damaged_repository_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(content)
    assert "project" not in commits(tmp_path)


def test_an_installed_package_is_not_at_its_neighbours_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = project / ".venv" / "lib" / "eightfold"
    installed.mkdir(parents=True)
    monkeypatch.setattr(eightfold, "__file__", str(installed / "__init__.py"))
    assert "eightfold" not in commits(project)


def test_a_checkout_is_at_its_own(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src" / "eightfold").mkdir(parents=True)
    monkeypatch.setattr(eightfold, "__file__", str(project / "src" / "eightfold" / "__init__.py"))
    assert commits(tmp_path)["eightfold"]["commit"] == git(project, "rev-parse", "HEAD")
