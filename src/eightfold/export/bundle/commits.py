"""Records the commits that made a bundle: of eightfold where it runs from a checkout, and of the user's project.

Nothing else of a repository is looked at: no path, no name, no address goes into a bundle.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import eightfold
from eightfold.json_types import JsonDict, JsonMapping

GIT_TIMEOUT_S = 10


def commits(project: Path) -> dict[str, JsonDict]:
    """Known commits: {"eightfold": {"commit", "dirty"}, "project": {...}}.

    Args:
        project: a folder of the project that the network comes from. Left out where it is in no git work tree, and
            where git is not installed.

    Returns:
        `dirty` tells whether tracked files differ from the commit; it is absent where git does not tell.
    """
    package = Path(eightfold.__file__).resolve().parent
    checkout = package.parents[1]
    found = {"project": _state(project)}
    # An installed package may lie in someone's work tree, too, in a virtual environment: then it is not that commit.
    if package == checkout / "src" / "eightfold" and (checkout / ".git").exists():
        found["eightfold"] = _state(checkout)
    return {name: state for name, state in sorted(found.items()) if state}


def describe_commit(state: JsonMapping) -> str:
    """A commit for a person, with a remark about later changes."""
    changes = {True: ", with changes since", False: "", None: ", changes since unknown"}[state.get("dirty")]
    return f"{state['commit']}{changes}"


def _state(folder: Path) -> JsonDict:
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return {}
    changes = _git(folder, "status", "--porcelain", "-uno")
    return {"commit": commit} if changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None where it fails or git is not installed.

    No hook, monitor or lock: asking must neither run the repository's programs nor disturb those who work in it.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
