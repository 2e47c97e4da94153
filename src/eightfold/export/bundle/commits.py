"""Records the commits that made a bundle: of eightfold where it runs from a checkout, and of the user's project.

The commit is read from git's files, so that no `git` is needed; whether tracked files were changed since, only git can
tell. Nothing else of a repository is looked at: no path, no name, no address goes into a bundle.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import eightfold

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")  # SHA-1, or SHA-256 of newer repositories
GIT_TIMEOUT_S = 10
LONGEST_FILE_BYTES = 64 << 20


def commits(project: Path) -> dict[str, dict[str, Any]]:
    """Known commits: {"eightfold": {"commit", "dirty"}, "project": {...}}.

    Args:
        project: a folder of the project that the network comes from. Left out where it is in no git work tree.

    Returns:
        `dirty` tells whether tracked files differ from the commit; it is absent where git cannot be asked.
    """
    package = Path(eightfold.__file__).resolve().parent
    checkout = package.parents[1]
    found = {"project": _state(_work_tree_of(project.resolve()))}
    # An installed package may lie in someone's work tree, too, in a virtual environment: then it is not that commit.
    if package == checkout / "src" / "eightfold" and (checkout / ".git").exists():
        found["eightfold"] = _state(checkout)
    return {name: state for name, state in sorted(found.items()) if state}


def describe_commit(state: Mapping[str, Any]) -> str:
    """A commit for a person, with a remark about later changes."""
    changes = {True: ", with changes since", False: "", None: ", changes since unknown"}[state.get("dirty")]
    return f"{state['commit']}{changes}"


def _work_tree_of(folder: Path) -> Path | None:
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def _state(work_tree: Path | None) -> dict[str, Any]:
    commit = None if work_tree is None else _commit(work_tree / ".git")
    if work_tree is None or commit is None:
        return {}
    dirty = _dirty(work_tree)
    return {"commit": commit} if dirty is None else {"commit": commit, "dirty": dirty}


def _commit(git: Path) -> str | None:
    """The commit that HEAD stands for; None where there is none yet, or it is kept in a way not known here."""
    if git.is_file():  # of a linked work tree or a submodule
        git = git.parent / _text(git).removeprefix("gitdir:").strip()
    head = _text(git / "HEAD")
    if not head.startswith("ref:"):
        return _hash(head)
    name = head.removeprefix("ref:").strip()
    common = git / (_text(git / "commondir") or ".")
    for place in (git, common):
        if commit := _hash(_text(place / name)):
            return commit
    packed = (line.split(" ", 1) for line in _text(common / "packed-refs").splitlines() if " " in line)
    return next((_hash(commit) for commit, reference in packed if reference == name), None)


def _text(path: Path) -> str:
    """A small text file's content; "" where there is none."""
    try:
        with path.open("rb") as stream:
            return stream.read(LONGEST_FILE_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def _hash(text: str) -> str | None:
    return text if COMMIT.fullmatch(text) else None


def _dirty(work_tree: Path) -> bool | None:
    # No hook, monitor or lock: asking must neither run the repository's programs nor disturb those who work in it.
    command = ["git", "-C", str(work_tree), "-c", "core.fsmonitor=false", "status", "--porcelain", "-uno"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(done.stdout.strip()) if done.returncode == 0 else None
