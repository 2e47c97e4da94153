"""Predicts the steps of a run and the reason for each, from the records of earlier steps; writes nothing.

What a step reads from one that is made again may come out the same, so that the step has nothing to do: of such a step
this says that it may run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eightfold.json_types import JsonDict
from eightfold.pipeline.job.runner import PipelineStep, digests, key_of, read_record, record_path, step_content

LONGEST_VALUE = 24  # characters; digests are longer
State = Literal["up to date", "would run", "may run"]


@dataclass(frozen=True)
class StepPreview:
    """Prediction for one step of a run.

    Attributes:
        name: of the step.
        state: what would happen to it.
        why: the reason; "" where it is up to date.
    """

    name: str
    state: State
    why: str = ""

    def describe(self) -> str:
        """One line for a person: step, state, reason."""
        return f"{self.name}: {self.state}" + (f" ({self.why})" if self.why else "")


def foresee(directory: Path, steps: Sequence[PipelineStep]) -> tuple[StepPreview, ...]:
    """Predictions for `run_steps` in `directory`, step by step."""
    makers: dict[str, str] = {}  # file or folder -> the step that would or may make it anew
    found = []
    for step in steps:
        found.append(_outlook(directory, step, makers))
        if found[-1].state != "up to date":
            makers |= dict.fromkeys(step.outputs, step.name)
    return tuple(found)


def _outlook(directory: Path, step: PipelineStep, makers: dict[str, str]) -> StepPreview:
    record = read_record(record_path(directory, step))
    if why := _certain_reason(directory, step, record):
        return StepPreview(step.name, "would run", why)
    anew = [path for path in step.inputs if path in makers]
    if anew:
        return StepPreview(step.name, "may run", f"reads {anew[0]}, which '{makers[anew[0]]}' would make")
    content = step_content(directory, step)
    if record["key"] != key_of(content):
        return StepPreview(step.name, "would run", _changed_inputs(content["inputs"], record.get("inputs")))
    return StepPreview(step.name, "up to date")


def _certain_reason(directory: Path, step: PipelineStep, record: JsonDict) -> str:
    """A reason to run the step whatever its inputs become; "" if there is none."""
    if "key" not in record:
        return "not done yet"
    for path, digest in digests(directory, step.outputs).items():
        if digest is None or digest != record.get("outputs", {}).get(path):
            return f"{path} is missing" if digest is None else f"{path} was changed"
    now, before = json.loads(json.dumps(step.settings)), record.get("settings")
    if before is None or now == before:
        return ""
    return f"changed: {', '.join(_differences(now, before))}"


def _differences(now: Any, before: Any, name: str = "") -> list[str]:
    """The places where two settings differ, with dots between a section and its keys; short values with both."""
    if now == before:
        return []
    if isinstance(now, dict) and isinstance(before, dict):
        keys = sorted(now.keys() | before)
        return [
            each
            for key in keys
            for each in _differences(now.get(key), before.get(key), f"{name}.{key}" if name else key)
        ]
    shown = [json.dumps(value) for value in (before, now)]
    return [f"{name} {shown[0]} -> {shown[1]}" if max(map(len, shown)) <= LONGEST_VALUE else name]


def _changed_inputs(now: dict[str, str | None], before: dict[str, str | None] | None) -> str:
    if before is None:  # a record of the time when it did not say what was read
        return "its settings or what it reads changed"
    return f"changed: {', '.join(path for path, digest in now.items() if before.get(path) != digest)}"
