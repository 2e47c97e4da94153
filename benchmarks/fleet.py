"""A simulated fleet: 100 devices of other width steps, speeds and noise are profiled at once, and a tenth drops out.

Usage: python benchmarks/fleet.py [--devices N]

Every device is a process of its own that runs `eightfold profile --stream`, as a board does; its latency is a known
staircase with noise, so that what comes home can be checked. Four of them are behind a real sshd on the loopback
interface, the others behind a program that takes ssh's arguments and runs the command here. A tenth, one of the four
among them, is killed in the middle of its work. Then the same call is made again. Checked: no point that came home is
measured twice, none is missing, every step and every latency is the device's own. The table goes to
benchmarks/results/fleet.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import eightfold  # noqa: E402
from eightfold.runtime.bench.profile import remote_profile  # noqa: E402
from eightfold.runtime.bench.profile.layer_list import LayerList  # noqa: E402
from eightfold.runtime.bench.profile.layer_shape import LayerShape  # noqa: E402
from eightfold.runtime.bench.profile.remote_profile import DeviceJob, DeviceResult, profile_devices  # noqa: E402
from eightfold.runtime.devices.devices import describe_device  # noqa: E402
from sshd import running_sshd  # noqa: E402

RESULTS = HERE / "results" / "fleet.md"
SOURCE = str(Path(eightfold.__file__).parents[1])
STEPS, NOISES = (8, 16, 32), (0.0, 0.005, 0.01)
REAL = 4  # behind sshd
PROGRAM = "eightfold-fleet-device"
SHAPES = {
    LayerShape(kind="conv", size=(56, 56), kernel=(3, 3), padding=(1, 1), activation="relu"): (64, 64),
    LayerShape(kind="conv", size=(28, 28), kernel=(1, 1)): (256, 128),
    LayerShape(kind="depthwise", size=(28, 28), kernel=(3, 3), padding=(1, 1)): (1, 192),
    LayerShape(kind="linear", size=(1,)): (512, 1000),
    LayerShape(kind="add", size=(14, 14), parts=2): (1, 256),
}
# A device: its name is the host that ssh was asked for, or the port of its sshd.
DEVICE = """#!{python}
import json, os, pathlib, sys, zlib
sys.path.insert(0, {source!r})
name = os.environ.get("FLEET_NAME") or os.environ["SSH_CONNECTION"].split()[-1]
here = pathlib.Path({folder!r}) / name
facts = json.loads((here / "facts.json").read_text())
import numpy as np
from eightfold.cli.app import main
from eightfold.runtime.bench.profile import layer_list, settings


def staircase(shape, inputs, outputs, step, speed):
    up = lambda width: -(-width // step) * step
    return 0.01 + shape.macs(up(inputs) if shape.two_sided else up(outputs), up(outputs)) / speed


def timer(points, _):
    log = (here / "log").open("a")
    times = []
    for shape, inputs, outputs in points:
        seed = zlib.crc32(f"{{name}} {{shape.key}} {{inputs}} {{outputs}}".encode())
        noise = 1 + facts["noise"] * np.random.default_rng(seed).standard_normal()
        times.append(staircase(shape, inputs, outputs, facts["step"], facts["speed"]) * noise)
        log.write(f"{{shape.key}} {{inputs}} {{outputs}}\\n")
        log.flush()
    if (here / "dies").exists() and sum(1 for _ in (here / "log").open()) > facts["dies_after"]:
        os.kill(os.getpid(), 9)
    return times, 1.0


layer_list.time_layers = timer
settings.device_identity = lambda device: ("simulated", name)
main()
"""
# Sends real addresses to the system's ssh, with every server's key, and the others to a shell.
ROUTER = """#!{python}
import os, sys
words = sys.argv[1:]
host = words[words.index("--") + 1] if "--" in words else words[-1]
if host.startswith("127."):
    real = {real!r}
    keys = [word for key in {keys!r}.values() for word in ("-i", key)]
    os.execvp(real[0], [*real, *keys, *words])
if "-O" in words:
    sys.exit(0)
os.environ.update(FLEET_NAME=host, PATH={path!r})
os.execvp("sh", ["sh", "-c", words[words.index("--") + 2]])
"""


def add_device(folder: Path, name: str, number: int, drops: bool) -> None:
    """Facts of a device, in a folder of its own."""
    place = folder / name
    place.mkdir()
    random = np.random.default_rng(number)
    facts = {
        "step": STEPS[number % len(STEPS)],
        "noise": NOISES[number // len(STEPS) % len(NOISES)],
        "speed": float(10 ** random.uniform(6.5, 8.5)),
        "dies_after": int(random.integers(60, 100)),
    }
    (place / "facts.json").write_text(json.dumps(facts))
    if drops:
        (place / "dies").touch()


def worst_error(result: DeviceResult, facts: dict[str, float]) -> float:
    """Largest relative error at widths between the grid's, against the device's own staircase."""
    assert result.profile is not None
    step, worst = int(facts["step"]), 0.0
    for shape, (inputs, outputs) in SHAPES.items():
        for share in (0.4, 0.7, 1.0):
            i, o = (max(step, round(share * width / step) * step) for width in (inputs, outputs))
            macs = shape.macs(i if shape.two_sided else o, o)
            worst = max(worst, abs(result.profile.at(shape, i, o) / (0.01 + macs / facts["speed"]) - 1))
    return worst


def asked_twice(folder: Path, name: str, home: set[tuple[str, int, int]]) -> int:
    """Points that came home in the first call and were measured again in the second."""
    log = collections.Counter((folder / name / "log").read_text().split("\n"))
    seen = {" ".join(map(str, key)) for key in home}
    return sum(log[each] > 1 for each in seen if "14x14-k3x3" not in each)  # the step is measured three times


def points_of(path: Path) -> list[tuple[str, int, int]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return [(LayerShape.model_validate(each["shape"]).key, *each["widths"]) for each in lines if "widths" in each]


def run(devices: int, folder: Path) -> str:
    """Both calls, and the table."""
    (folder / "sshd").mkdir()
    names: dict[str, str] = {}
    bins = folder / "sshd" / "bin"
    with contextlib.ExitStack() as stack:
        for number in range(REAL):
            port = stack.enter_context(running_sshd(folder / f"sshd{number}"))
            names[f"ssh://127.0.0.1:{port}"] = str(port)
        bins.mkdir()
        script = DEVICE.format(python=sys.executable, source=SOURCE, folder=str(folder))
        for place in (bins, *(folder / f"sshd{number}" / "bin" for number in range(REAL))):
            (place / PROGRAM).write_text(script)
            (place / PROGRAM).chmod(0o755)
        real_ssh = os.environ["EIGHTFOLD_SSH"].split()
        router = folder / "ssh"
        router.write_text(ROUTER.format(python=sys.executable, real=real_ssh, keys=keys_of(folder), path=path_of(bins)))
        router.chmod(0o755)
        os.environ["EIGHTFOLD_SSH"] = str(router)
        names |= {f"ssh://device{number:03}": f"device{number:03}" for number in range(REAL, devices)}
        dropping = {url for number, url in enumerate(names) if number % 10 == 1}
        for number, (url, name) in enumerate(names.items()):
            add_device(folder, name, number, url in dropping)
        return table(names, dropping, folder)


def keys_of(folder: Path) -> dict[str, str]:
    return {str(number): str(folder / f"sshd{number}" / "user") for number in range(REAL)}


def path_of(bins: Path) -> str:
    return os.pathsep.join([str(bins), str(Path(sys.executable).parent), os.environ["PATH"]])


def table(names: dict[str, str], dropping: set[str], folder: Path) -> str:
    remote_profile.PROGRAM = PROGRAM
    layers, jobs, home = LayerList.of(SHAPES), [DeviceJob(url, threads=1) for url in names], folder / "home"
    begin = time.perf_counter()
    first = profile_devices(layers, jobs, home)
    first_s = time.perf_counter() - begin
    came_home = {each.job.device: set(points_of(each.path)) for each in first if each.path.exists()}
    for name in names.values():
        (folder / name / "dies").unlink(missing_ok=True)
    begin = time.perf_counter()
    second = profile_devices(layers, jobs, home)
    second_s = time.perf_counter() - begin
    failed = {each.job.device for each in first if each.failed}
    facts = {url: json.loads((folder / name / "facts.json").read_text()) for url, name in names.items()}
    head = ("step", "noise", "devices", "whole at once", "dropped out", "points kept", "whole in the end", "step found")
    rows = [f"| {' | '.join(head)} | worst error |", "|---" * (len(head) + 1) + "|"]
    for step in STEPS:
        for noise in NOISES:
            mine = [url for url, each in facts.items() if (each["step"], each["noise"]) == (step, noise)]
            firsts = [each for each in first if each.job.device in mine]
            seconds = [each for each in second if each.job.device in mine]
            whole = [each for each in seconds if each.profile is not None]
            right = sum(each.profile.steps[1] == step for each in whole if each.profile is not None)
            error = max((worst_error(each, facts[each.job.device]) for each in whole), default=float("nan"))
            lost = [each for each in firsts if each.failed]
            rows.append(
                f"| {step} | {noise:.1%} | {len(mine)} | {sum(not each.failed for each in firsts)} | {len(lost)} | "
                f"{sum(each.points for each in lost)} | {len(whole)} | {right} | {error:.1%} |"
            )
    twice = sum(asked_twice(folder, names[url], came_home.get(url, set())) for url in failed)
    again = sum(each.new for each in second if each.job.device not in failed)
    return "\n".join(
        [
            "# A simulated fleet",
            "",
            f"{len(names)} devices in processes of their own on {describe_device().line()}, {REAL} of them behind a "
            f"real sshd; {len(SHAPES)} layer shapes. `python benchmarks/fleet.py` writes this table.",
            "",
            *rows,
            "",
            f"Killed in the middle: {len(dropping)}; reported as failed: {len(failed)}"
            f"{'' if failed == dropping else ' (NOT the same)'}. First call {first_s:.0f} s, the same call again "
            f"{second_s:.0f} s. Points that came home from a device that dropped out and were measured again: {twice}; "
            f"points measured again on the others: {again}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=100)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = run(asked.devices, Path(folder))
    print(text)
    RESULTS.write_text(text)


if __name__ == "__main__":
    main()
