"""Damaged bundles through the loader: no crash, no hang over two seconds, nothing written outside.

Usage: python benchmarks/fuzz_bundle.py [--cases 10000] [--seed 0]

Manifests are damaged as text and as JSON (with digests made right again, as a forger would), zips and ONNX files as
bytes. Every case ends in a bundle that opens and verifies, or in an EightfoldError; anything else is printed with the
seed that makes it again. Cases run in child processes, so that a crash of native code is seen, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import random
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eightfold.calib.preprocess import Preprocess
from eightfold.errors import EightfoldError
from eightfold.export.bundle import onnx_artifact, write_bundle
from eightfold.export.onnx_files import load_onnx, tensor_specs
from eightfold.runtime.bundle import Bundle, manifest_digest_line
from eightfold.runtime.manifest import Task

RESULT = Path(__file__).parent / "results" / "fuzz_bundle.md"
HANG_S = 2.0
PER_CHILD = 250
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 1e308, "", "..", "../../escape", "/etc/passwd", "a/../../b", "C:\\x", "x\0y", "\ud800",
    [], {}, [[[[]]]], "x" * 10_000, float("nan"), {"": ""},
)  # fmt: skip


def make_bundle(folder: Path) -> Path:
    weight = np.arange(64, dtype=np.float32).reshape(8, 8)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "w"], ["out"])],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph), folder / "net.onnx")
    artifact = onnx_artifact(folder / "net.onnx", id="a", inside="onnx/net.onnx", variant="v")
    arguments: dict[str, Any] = {
        "name": "fuzz",
        "task": Task(kind="classify", decode="classify", labels=("a", "b")),
        "preprocess": Preprocess(height=8, width=8),
        "artifacts": [artifact],
        "files": {"onnx/net.onnx": folder / "net.onnx"},
    }
    write_bundle(folder / "bundle.eightfold", **arguments)
    return write_bundle(folder / "bundle", **arguments)


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        place, kind = rng.randrange(len(changed) or 1), rng.randrange(5)
        if kind == 0 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and changed:
            changed[place] = rng.choice((0, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del changed[place : place + rng.randint(1, 64)]
        elif kind == 3:
            changed[place:place] = rng.randbytes(rng.randint(1, 16))
        else:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
    return bytes(changed)


def damage_json(value: Any, rng: random.Random) -> Any:
    """Replace, drop, double or rename something at a random depth."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {name: item for name, item in value.items() if name != key}
        if kind == 1:
            return {**value, str(rng.choice(NASTY)): value[key]}
        return {**value, key: damage_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = rng.randrange(len(value))
        return [*value[:place], damage_json(value[place], rng), *value[place + rng.randint(0, 1) :]]
    return rng.choice(NASTY)


def manifest_case(source: Path, folder: Path, rng: random.Random) -> Path:
    shutil.copytree(source / "bundle", folder / "bundle")
    file = folder / "bundle" / "manifest.json"
    if rng.random() < 0.3:
        data = damage_bytes(file.read_bytes(), rng)
    else:
        changed = json.loads(file.read_text())
        for _ in range(rng.randint(1, 3)):
            changed = damage_json(changed, rng)
        data = json.dumps(changed).encode(errors="surrogatepass")
    file.write_bytes(data)
    if rng.random() < 0.9:
        (folder / "bundle" / "manifest.sha256").write_text(manifest_digest_line(data))
    return folder / "bundle"


def zip_case(source: Path, folder: Path, rng: random.Random) -> Path:
    target = folder / "bundle.eightfold"
    target.write_bytes(damage_bytes((source / "bundle.eightfold").read_bytes(), rng))
    return target


def onnx_case(source: Path, folder: Path, rng: random.Random) -> Path:
    target = folder / "net.onnx"
    target.write_bytes(damage_bytes((source / "net.onnx").read_bytes(), rng))
    return target


CASES: dict[str, Callable[[Path, Path, random.Random], Path]] = {
    "manifest": manifest_case,
    "zip": zip_case,
    "onnx": onnx_case,
}


def load(path: Path) -> str:
    try:
        if path.suffix == ".onnx":
            tensor_specs(load_onnx(path))
        else:
            Bundle.open(path).verify()
    except EightfoldError:
        return "refused"
    return "accepted"


def _raise_hang(*_: object) -> None:
    raise TimeoutError("over two seconds")


def run_case(kind: str, seed: str, source: Path) -> str:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name)
        (outer / "in").mkdir()
        path = CASES[kind](source, outer / "in", rng)
        before = sorted(outer.rglob("*"))
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            outcome = load(path)
        # Any other exception is what is looked for here.
        except Exception as error:
            print(f"{kind} {seed}: {''.join(traceback.format_exception(error)[-3:])}", flush=True)
            outcome = f"fault: {type(error).__name__}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if sorted(outer.rglob("*")) != before or Path("/tmp/escape").exists():
            outcome = "fault: wrote outside"
        return outcome


def child(kind: str, seeds: list[str], source: Path, results: Any) -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _raise_hang)
    for seed in seeds:
        results.send((kind, run_case(kind, seed, source)))


def fuzz(cases: int, seed: int) -> Counter[tuple[str, str]]:
    outcomes: Counter[tuple[str, str]] = Counter()
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        make_bundle(Path(name))
        per_kind = -(-cases // len(CASES))
        for kind in CASES:
            for start in range(0, per_kind, PER_CHILD):
                seeds = [f"{seed}-{kind}-{number}" for number in range(start, min(start + PER_CHILD, per_kind))]
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=child, args=(kind, seeds, Path(name), sender))
                process.start()
                sender.close()  # so that the end of the child, however it comes, ends the reading
                with contextlib.suppress(EOFError):
                    while True:
                        outcomes[receiver.recv()] += 1
                process.join()
                if process.exitcode:
                    outcomes[kind, f"fault: crash ({process.exitcode})"] += 1
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    start = time.monotonic()
    outcomes = fuzz(options.cases, options.seed)
    rows = [f"| {kind} | {outcome} | {count} |" for (kind, outcome), count in sorted(outcomes.items())]
    head = [
        f"{sum(outcomes.values())} cases, seed {options.seed}, {time.monotonic() - start:.0f} s, {platform.machine()}"
    ]
    text = "\n".join(["# Damaged bundles", "", *head, "", "| kind | outcome | cases |", "|---|---|---|", *rows]) + "\n"
    print(text)
    options.result.parent.mkdir(exist_ok=True)
    options.result.write_text(text)
    if any("fault" in outcome for _, outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
