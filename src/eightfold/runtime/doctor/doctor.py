"""Diagnoses this machine: parts of eightfold that work, that are missing, and that are broken.

Packages are really imported. Each back end gets a process of its own; the others share one, because importing torch
anew for each that needs it would take too long.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

import eightfold
from eightfold.extras import EXTRA_OF
from eightfold.progress import track
from eightfold.runtime.backends import BACKENDS
from eightfold.runtime.devices.device_probe import DeviceProbe
from eightfold.runtime.devices.devices import Device, describe_device
from eightfold.runtime.doctor.import_check import Attempt, Outcome, try_imports
from eightfold.values import Frozen, Value
from eightfold.versions import distributions_of

# Section -> modules, in the order in which they are shown.
SECTIONS: dict[str, tuple[str, ...]] = {
    "backends": tuple(dict.fromkeys(backend.module for backend in BACKENDS.values() if backend.module)),
    "GPU memory for TensorRT (one is enough)": ("cuda", "pycuda"),
    "images": ("cv2",),
    "compress": ("torch", "torchvision", "scipy", "safetensors", "yaml"),
    "export": ("onnx", "onnx_ir", "onnxscript", "onnxsim", "onnxslim"),
    "report": ("matplotlib", "jinja2"),
    "models and data": ("timm", "ultralytics", "mlxtend"),
}
# What to import to know that a package works, where that is not its own name.
IMPORTED = {"cuda": "cuda.bindings.runtime", "pycuda": "pycuda.driver"}
# Expressions over the imported module `m`: what a user wants to know beyond the version.
DETAIL = {
    "onnxruntime": "', '.join(p.removesuffix('ExecutionProvider') for p in m.get_available_providers())",
    "openvino": "', '.join(m.Core().available_devices)",
    "torch": "'CUDA ' + m.version.cuda if m.cuda.is_available() else 'CPU only'",
}
# Never imported unless the user asks for them: their licence is not ours to accept.
NOT_IMPORTED = {"ultralytics": "AGPL-3.0, not imported"}


class Finding(Frozen):
    """One optional package."""

    section: str
    module: str
    state: Literal["ok", "missing", "broken"]
    version: str = ""
    detail: str = ""
    remedy: str = ""


class Diagnosis(Value):
    """Findings of `eightfold doctor`."""

    kind: ClassVar[str] = "diagnosis"

    eightfold: str
    python: str
    executable: str
    device: Device
    findings: tuple[Finding, ...]
    advice: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Findings about packages that fail to import."""
        return tuple(finding for finding in self.findings if finding.state == "broken")

    def describe(self) -> str:
        lines = [f"eightfold {self.eightfold}, Python {self.python} ({self.executable})", "", "this machine"]
        lines += [f"  {line}" for line in self.device.describe().splitlines()]
        for section in dict.fromkeys(finding.section for finding in self.findings):
            lines += ["", section, *_table(finding for finding in self.findings if finding.section == section)]
        if self.advice:
            lines += ["", "advice", *(f"  - {text}" for text in self.advice)]
        return "\n".join(lines)


def diagnose(probe: DeviceProbe | None = None) -> Diagnosis:
    """Look at the machine and at every optional package. Takes a few seconds: each package is really imported."""
    probe = probe or DeviceProbe()
    device = describe_device(probe)
    backends, *others = sections().values()
    groups = [[module] for module in backends] + [[module for modules in others for module in modules]]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        examined = pool.map(lambda group: examine(group, probe=probe), groups)
        findings = [each for group in track(examined, "importing packages", total=len(groups)) for each in group]
    return Diagnosis(
        eightfold=eightfold.__version__,
        python=platform.python_version(),
        executable=sys.executable,
        device=device,
        findings=tuple(findings),
        advice=tuple(_advice(device, {finding.module: finding for finding in findings})),
    )


def sections() -> dict[str, tuple[str, ...]]:
    """SECTIONS, and what is optional but in none of them."""
    shown = {module for modules in SECTIONS.values() for module in modules}
    rest = tuple(sorted(EXTRA_OF.keys() - shown))
    return SECTIONS | ({"other": rest} if rest else {})


def examine(modules: Sequence[str], *, probe: DeviceProbe | None = None) -> list[Finding]:
    """Tries to import each of these packages, in one process."""
    present = [module for module in modules if importlib.util.find_spec(module) is not None]
    attempts = {
        module: Attempt(IMPORTED.get(module, module), DETAIL.get(module, ""))
        for module in present
        if module not in NOT_IMPORTED
    }
    imported = dict(zip(attempts, try_imports(list(attempts.values())), strict=True))
    return [
        _finding(module, imported.get(module, Outcome(said=NOT_IMPORTED.get(module, ""))))
        if module in present
        else _missing(module, probe or DeviceProbe())
        for module in modules
    ]


def _finding(module: str, outcome: Outcome) -> Finding:
    found = distributions_of(module)
    version = next(iter(found.values()), "")
    if not outcome.fault:
        return Finding(section=_section(module), module=module, state="ok", version=version, detail=outcome.said)
    packages = " ".join(f"{name}=={number}" for name, number in found.items()) or module
    remedy = f"pip install --force-reinstall --no-deps {packages}"
    return Finding(
        section=_section(module), module=module, state="broken", version=version, detail=outcome.fault, remedy=remedy
    )


def _missing(module: str, probe: DeviceProbe) -> Finding:
    return Finding(section=_section(module), module=module, state="missing", remedy=_how_to_get(module, probe))


def _section(module: str) -> str:
    return next((section for section, modules in sections().items() if module in modules), "")


def _how_to_get(module: str, probe: DeviceProbe) -> str:
    if module == "pycuda":
        return "only where cuda-python has no wheel (JetPack 4 and 5): pip install pycuda"
    if module == "tensorrt" and probe.paths("usr/lib/python3*/dist-packages/tensorrt"):
        return "JetPack's own is hidden from this environment: make it with python3 -m venv --system-site-packages"
    return f"pip install 'eightfold[{EXTRA_OF[module]}]'" if module in EXTRA_OF else f"pip install {module}"


def _advice(device: Device, found: dict[str, Finding]) -> Iterable[str]:
    if all(found[module].state != "ok" for module in SECTIONS["backends"]):
        yield "no backend can run a model here; the smallest is pip install 'eightfold[cpu]'"
    if device.gpus and found["tensorrt"].state != "ok" and "CUDA" not in found["onnxruntime"].detail:
        yield "a GPU is here that no backend can use: pip install 'eightfold[tensorrt]'"
    if not device.gpus and device.jetson is None and found["tensorrt_rtx"].state == "ok":
        yield "tensorrt_rtx builds engines here; running them needs an NVIDIA GPU"
    if device.cpu.features and not device.cpu.has_int8_dot:
        yield "this CPU has no 8-bit dot product (VNNI, AMX, dotprod): INT8 may be no faster than FP32, so measure"
    yield from _clashes()
    yield from _timing_advice(device)


def _clashes() -> Iterable[str]:
    """Packages that put their files into one folder: the one installed last wins, in part."""
    for module in ("onnxruntime", "cv2"):
        names = list(distributions_of(module))
        if len(names) > 1:
            remedy = f"pip uninstall {' '.join(names)}, then install one"
            yield f"{' and '.join(names)} overwrite each other's files: {remedy}"


def _timing_advice(device: Device) -> Iterable[str]:
    cpu = device.cpu
    if device.jetson and device.jetson.clocks_locked is False:
        yield "clocks move freely: for times that can be compared, run sudo jetson_clocks"
    elif cpu.governor and cpu.governor != "performance" and not cpu.clocks_locked:
        yield f"CPU governor is {cpu.governor}: times vary less with sudo cpupower frequency-set -g performance"
    if cpu.quota_cores and cpu.cores and cpu.quota_cores < cpu.cores:
        yield f"the container may use {cpu.quota_cores:g} of {cpu.cores} cores: set threads to at most that"
    if cpu.virtual:
        yield "this is a virtual machine: neighbours disturb times, so trust ratios of one run rather than milliseconds"
    if device.state.load_1min is not None and cpu.cores and device.state.load_1min > 0.5 * cpu.cores:
        yield f"the load is {device.state.load_1min:.1f} on {cpu.cores} cores: times measured now include other work"


def _table(findings: Iterable[Finding]) -> list[str]:
    """Short cells in columns; errors of broken packages and remedies on separate lines."""
    lines, found = [], list(findings)
    module_width = max([13, *(len(finding.module) for finding in found)])
    version_width = max([12, *(len(finding.version) for finding in found)])
    for finding in found:
        rest = finding.remedy if finding.state == "missing" else finding.detail
        lines.append(
            f"  {finding.state:<8} {finding.module:<{module_width}} {finding.version:<{version_width}} {rest}".rstrip()
        )
        if finding.state == "broken":
            lines.append(f"{'':<11}try: {finding.remedy}")
    return lines
