"""Tries imports in other processes: a library that crashes, ends or hangs Python takes nothing down with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

IMPORT_TIMEOUT_S = 120.0

# Prints one line for each module in turn: what the detail expression gave, or what went wrong.
CHILD = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
parts, sys.path[:] = json.loads(sys.argv[1])
for name, detail in parts:
    said = fault = ""
    try:
        m = importlib.import_module(name)
        if getattr(m, "__file__", None) is None and m.__spec__ and m.__spec__.origin is None:
            raise ImportError("an empty folder stands where the package should be")
        said = str(eval(detail)) if detail else ""
    except BaseException as error:
        fault = (f"{type(error).__name__}: {error}").splitlines()[0]
    print("\\nRESULT " + json.dumps([said, fault]), flush=True)
"""


@dataclass(frozen=True)
class Attempt:
    """A module to import, and an expression over it, named `m`, whose value is wanted."""

    module: str
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """Value of the expression, or its error: one of the two is empty."""

    said: str = ""
    fault: str = ""


def try_imports(attempts: Sequence[Attempt]) -> list[Outcome]:
    """One outcome for each attempt. They share a process; after a crash the rest goes on in a new one."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(attempts):
        found, end = _in_one_process(attempts[len(outcomes) :])
        outcomes += found
        if len(outcomes) < len(attempts):
            outcomes.append(Outcome(fault=f"importing it {end}"))
    return outcomes


def _in_one_process(attempts: Sequence[Attempt]) -> tuple[list[Outcome], str]:
    """The outcomes in order, and how the process ended if it did not get to the last."""
    parts = [(attempt.module, attempt.detail) for attempt in attempts]
    command = [sys.executable, "-c", CHILD, json.dumps([parts, sys.path])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else (error.stdout or "")
        return _outcomes(output), f"did not end within {IMPORT_TIMEOUT_S:.0f} s"
    crashed = done.returncode < 0
    return _outcomes(
        done.stdout
    ), f"crashed Python ({signal.Signals(-done.returncode).name})" if crashed else "ended Python"


def _outcomes(output: str) -> list[Outcome]:
    lines = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    return [Outcome(*json.loads(line)) for line in lines]
