"""Measurements with all their processes, which other tests do without."""

from __future__ import annotations

import pytest

from eightfold.runtime.bench.peak_memory import probe_memory
from eightfold.runtime.bench.starts import start_in_process


@pytest.fixture(autouse=True)
def _processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eightfold.runtime.bench.starts.start_in_process", start_in_process)
    monkeypatch.setattr("eightfold.runtime.bench.bench.probe_memory", probe_memory)
