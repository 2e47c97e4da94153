"""Selects the artifacts of a bundle that this machine can run, and their backends."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from eightfold.runtime.backends import BACKENDS, usable_backends
from eightfold.runtime.bundle.manifest import Artifact

# Machines by Python's name for them -> the CPU target whose arithmetic is fast there.
CPU_TARGETS = {"x86_64": "cpu-x86", "AMD64": "cpu-x86", "aarch64": "cpu-arm", "arm64": "cpu-arm"}


def runs_here(artifact: Artifact, backend: str, machine: str | None = None) -> bool:
    """True if `backend` runs this artifact on this machine as intended.

    A quantized graph made for another target may well load, but slowly or with other results: it does not count.
    """
    if artifact.format not in BACKENDS[backend].formats:
        return False
    return artifact.target == "any" or artifact.target.partition(":")[0] in targets_of(backend, machine)


def targets_of(backend: str, machine: str | None = None) -> tuple[str, ...]:
    """Targets whose artifacts a back end runs on this kind of machine."""
    found = BACKENDS[backend]
    return found.targets + ((cpu_target(machine),) if found.runs_cpu_targets else ())


def cpu_target(machine: str | None = None) -> str:
    """The target for a kind of processor, this machine's by default: of one without a short name "cpu-" and its own."""
    machine = machine or platform.machine()
    return CPU_TARGETS.get(machine, f"cpu-{machine}")


def default_backends(artifacts: Sequence[Artifact]) -> list[str]:
    """The usable backends that some artifact was made for; plain graphs count as made for those of the processor."""
    return [
        name
        for name in usable_backends()
        if any(
            runs_here(artifact, name)
            and (BACKENDS[name].runs_cpu_targets or artifact.target.partition(":")[0] in BACKENDS[name].targets)
            for artifact in artifacts
        )
    ]


def cpu_backends() -> list[str]:
    """The usable backends on the processor; each may be the fastest for some network."""
    return [name for name in usable_backends() if BACKENDS[name].runs_cpu_targets]
