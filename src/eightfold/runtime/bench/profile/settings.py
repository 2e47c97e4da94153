"""Settings under which a profile holds: the back end and its version, threads, precision, and the device."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from eightfold.errors import BackendError, UsageError, one_of
from eightfold.runtime.backends import BACKENDS, backend_named
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bench.latency import device_identity
from eightfold.runtime.devices.devices import Device, describe_device
from eightfold.values import Frozen
from eightfold.versions import runtime_versions

ProfilePrecision = Literal["fp32", "int8"]
PRECISIONS: tuple[ProfilePrecision, ...] = get_args(ProfilePrecision)
# Kinds whose weights the target leaves in float: onnxruntime has no integer kernel for them.
FLOAT_KINDS = {"onnxruntime": frozenset({"conv_transpose"})}


class ProfileSettings(Frozen):
    """Everything that two profiles must share for their times to be comparable."""

    target: str = Field(description="cpu-x86, cpu-arm (onnxruntime on this processor), or openvino")
    backend: str
    backend_version: str
    precision: ProfilePrecision = "fp32"
    threads: int = Field(ge=1)
    device: str = Field(description="processor, cores, board and GPUs")

    def describe(self) -> str:
        """One line for a person."""
        version = f"{self.backend} {self.backend_version}"
        return f"{self.target} {self.precision}, {version}, threads: {self.threads}, on {self.device}"


def settings_for(
    target: str, precision: str, threads: int | None = None, device: Device | None = None
) -> ProfileSettings:
    """The settings on this machine.

    Args:
        target: "cpu-x86" or "cpu-arm", which means onnxruntime on that processor, or "openvino".
        precision: "fp32" or "int8".
        threads: the physical cores by default.

    Raises:
        UsageError: no such target, or one of another machine.
        BackendError: its back end is not installed.
    """
    known = one_of("precision of a profile", precision, PRECISIONS)
    here = cpu_target()
    backend = {"openvino": "openvino", here: "onnxruntime"}.get(target)
    if backend is None:
        raise UsageError(
            f"layers of {target!r} cannot be timed here",
            allowed=f"{here} (onnxruntime) or openvino on this machine",
            remedy="run eightfold profile on a machine of that target, and pass its file with --profile",
        )
    backend_named(backend)
    found = device or describe_device()
    version = runtime_versions().get(BACKENDS[backend].module, "unknown")
    fingerprint = ", ".join(str(part) for part in device_identity(found) if part)
    return ProfileSettings(
        target=target,
        backend=backend,
        backend_version=version,
        precision=known,
        threads=threads or physical_cores(found),
        device=fingerprint,
    )


def physical_cores(device: Device) -> int:
    """Cores that this process may use, without the second threads of a core where the kernel tells."""
    usable = device.cpu.cores or 1
    if device.cpu.quota_cores:
        usable = max(1, min(usable, int(device.cpu.quota_cores)))
    return max(1, usable // _threads_per_core())


def _threads_per_core() -> int:
    from eightfold.runtime.devices.device_probe import DeviceProbe

    text = DeviceProbe().text("sys/devices/system/cpu/cpu0/topology/thread_siblings_list") or "0"
    return max(1, len(text.replace("-", ",").split(",")))


def require_same(wanted: ProfileSettings, seen: ProfileSettings, source: str) -> None:
    """Raise BackendError for a profile of another device, version, precision or number of threads."""
    for name in ProfileSettings.model_fields:
        if getattr(wanted, name) != getattr(seen, name):
            raise BackendError(
                f"{source} was measured with {name.replace('_', ' ')} {getattr(seen, name)!r}",
                allowed=repr(getattr(wanted, name)),
                remedy=f"measure again: eightfold profile MODEL --target {wanted.target} "
                f"--precision {wanted.precision} --threads {wanted.threads}",
            )
