"""Runs named steps in order, and skips each whose inputs, settings and outputs did not change.

A step's record holds one key (digest of its name, settings and inputs), those settings and inputs, so that what changed
can be told, the digest of each output, and a stamp: what is worth knowing of its making and no reason to make it again.
Files are compared by content, never by time, so a copied or restored run directory stays valid. A step writes its
outputs atomically and its record is written last: a run killed anywhere starts again at the step it was in.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eightfold.errors import EightfoldError
from eightfold.files import digest_of, remove_temporaries, sha256_of_bytes, write_text
from eightfold.json_types import JsonDict, JsonMapping


@dataclass(frozen=True)
class PipelineStep:
    """One step of a run.

    Attributes:
        name: unique within the run; also names its record.
        inputs: files or folders it reads, relative to the run directory, made by earlier steps.
        outputs: files or folders it writes.
        settings: everything else its result depends on, as JSON-able data.
        action: does the work, and returns a few words on what it did, for the terminal. It is given a folder for
            what should survive a kill (checkpoints): a second attempt at the same work finds it as the first left it.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: JsonMapping
    action: Callable[[Path], str] = field(compare=False)


@dataclass(frozen=True)
class StepResult:
    name: str
    skipped: bool
    seconds: float
    said: str


Listener = Callable[[StepResult | str], None]


def run_steps(
    directory: Path, steps: Sequence[PipelineStep], listener: Listener, stamp: JsonMapping | None = None
) -> list[StepResult]:
    """Run `steps` in order in `directory`; tell `listener` the name of each that starts and the result of each.

    `stamp` goes into the record of each step that is carried out; `stamps` reads it back.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        results = []
        for step in steps:
            results.append(_run_step(directory, step, listener, dict(stamp or {})))
            listener(results[-1])
        return results


def stamps(directory: Path) -> JsonDict:
    """Step -> the stamp under which it was carried out, for those that have one."""
    records = {file.stem: read_record(file) for file in sorted((directory / "steps").glob("*.json"))}
    return {name: record["stamp"] for name, record in records.items() if record.get("stamp")}


def _run_step(directory: Path, step: PipelineStep, listener: Listener, stamp: JsonDict) -> StepResult:
    start = time.monotonic()
    content = step_content(directory, step)
    key = key_of(content)
    record = read_record(record_path(directory, step))
    if record.get("key") == key and record.get("outputs") == digests(directory, step.outputs):
        _remove_scratch(directory, step.name)  # a kill between the record and this leaves it
        return StepResult(step.name, True, time.monotonic() - start, str(record.get("said", "")))
    listener(step.name)
    said = step.action(_scratch(directory, step.name, key))
    outputs = digests(directory, step.outputs)
    missing = [path for path, digest in outputs.items() if digest is None]
    if missing:
        raise EightfoldError(f"step {step.name} did not write {', '.join(missing)}", remedy="report this as a defect")
    new_record = {**content, "key": key, "outputs": outputs, "said": said, "stamp": stamp}
    write_text(record_path(directory, step), json.dumps(new_record, indent=1, sort_keys=True) + "\n")
    _remove_scratch(directory, step.name)
    return StepResult(step.name, False, time.monotonic() - start, said)


def _scratch(directory: Path, name: str, key: str) -> Path:
    """The folder for unfinished work of this step at this key; what other keys left is removed."""
    scratch = directory / "steps" / f"{name}-{key[:16]}"
    if not scratch.is_dir():
        _remove_scratch(directory, name)
        scratch.mkdir(parents=True)
    return scratch


def _remove_scratch(directory: Path, name: str) -> None:
    for old in (directory / "steps").glob(f"{name}-{'[0-9a-f]' * 16}"):
        shutil.rmtree(old)


def record_path(directory: Path, step: PipelineStep) -> Path:
    return directory / "steps" / f"{step.name}.json"


def step_content(directory: Path, step: PipelineStep) -> JsonDict:
    """The current state of everything that a step's result depends on."""
    return {"name": step.name, "settings": step.settings, "inputs": digests(directory, step.inputs)}


def key_of(content: JsonMapping) -> str:
    return sha256_of_bytes(json.dumps(content, sort_keys=True).encode())


def read_record(path: Path) -> JsonDict:
    """The record, or an empty one: an absent or damaged record only means that the step runs again."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if _is_whole(record) else {}


def _is_whole(record: Any) -> bool:
    """True if it has the parts of a record; those that came later may be absent."""
    if not isinstance(record, dict) or "key" not in record or "outputs" not in record:
        return False
    return all(isinstance(record.get(part, {}), dict) for part in ("outputs", "settings", "inputs", "stamp"))


def digests(directory: Path, paths: Sequence[str]) -> dict[str, str | None]:
    """SHA-256 of each file or folder; None where it is not there."""
    return {path: digest_of(directory / path) for path in paths}


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the run directory, cleared of what a killed run had begun to write: its lock went with its process."""
    with (directory / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EightfoldError(
                f"another run is at work in {directory}", remedy="wait for it, or choose another --output"
            ) from None
        remove_temporaries(directory)
        yield
