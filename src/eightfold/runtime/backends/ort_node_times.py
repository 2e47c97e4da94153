"""Reads the trace that onnxruntime writes of a session: the time of every kernel in every run."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eightfold.runtime.backends.base import NodeTime

if TYPE_CHECKING:
    import onnxruntime

KERNEL = "_kernel_time"


def node_times_of(session: onnxruntime.InferenceSession) -> dict[str, NodeTime]:
    """Time of each node of a session that was opened for it; ends the recording."""
    file = Path(session.end_profiling())
    found = times_in_trace(file.read_text())
    file.unlink()
    return found


def times_in_trace(text: str) -> dict[str, NodeTime]:
    """The kernels in the JSON of a trace, by the node's name; of those without one by the operator and a number."""
    operators: dict[str, str] = {}
    times = defaultdict[str, list[float]](list)
    for event in json.loads(text):
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            operator = event["args"]["op_name"]
            name = event["name"].removesuffix(KERNEL) or f"{operator}_{event['args'].get('node_index', '')}"
            operators[name] = operator
            times[name].append(event["dur"] / 1e3)
    return {name: NodeTime(operators[name], float(np.quantile(each, 0.25))) for name, each in times.items()}
