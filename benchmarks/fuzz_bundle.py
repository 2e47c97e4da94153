"""Damaged and hostile bundles through the loader: no crash, no hang over two seconds, nothing written outside.

Usage: python benchmarks/fuzz_bundle.py [--cases 10000] [--seed 0]

Four kinds, in equal parts: manifests, zips, ONNX files as `eightfold export` reads them, and bundles that are sound but
for their graph; see bundle_mutations.py. Bundles are opened, verified and loaded by a predictor with onnxruntime. Every
case ends in one that loads, or in an EightfoldError; anything else is printed with the seed that makes it again. Cases
run in child processes, so that a crash or hang of native code is seen, too. Where EIGHTFOLD_CPP_LIBRARY names a
libeightfold.so, it is given the same bundles, and cases that one runtime takes and the other refuses are counted.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bundle_mutations import CASES, SIZES, make_sound

from eightfold.errors import EightfoldError
from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.predict.predictor import Predictor

RESULT = Path(__file__).parent / "results" / "fuzz_bundle.md"
LIBRARY = os.environ.get("EIGHTFOLD_CPP_LIBRARY")
# Of the process's own time, which is the same however many others there are.
HANG_S = 2.0
# After this, a child that does not come back is ended: what hangs may wait and take no time of its own.
PATIENCE_S = 120.0
PER_CHILD = 250
# Hostile graphs ask for more than there is; that is refused, and must not take it from others meanwhile.
MEMORY_BYTES = 8 << 30
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")


class NativeOptions(ctypes.Structure):
    """`eightfold_options` of eightfold.h."""

    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("backend", "precision", "variant", "provider")),
        *((name, ctypes.c_int32) for name in ("batch", "threads", "preprocess_threads", "in_flight", "device")),
        ("public_key", ctypes.c_char_p),
        *((name, ctypes.c_int32) for name in ("height", "width")),
    )


class NativeTensor(ctypes.Structure):
    """`eightfold_tensor`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    )


def load(path: Path) -> str:
    try:
        if path.suffix == ".onnx":
            tensor_specs(load_onnx(path))
        else:
            bundle = Bundle.open(path)
            bundle.verify()
            for size in (None, *SIZES):
                with Predictor(bundle, backend="onnxruntime", size=size, threads=1) as predictor:
                    predictor.warmup(1)
    except EightfoldError:
        return "refused"
    return "accepted"


def load_natively(library: ctypes.CDLL, path: Path) -> str:
    """At the size that the bundle prefers, and at each of those that `make_sound` made."""
    sizes = ((0, 0), *SIZES)
    return "refused" if any(_load_natively(library, path, size) for size in sizes) else "accepted"


def _load_natively(library: ctypes.CDLL, path: Path, size: tuple[int, int]) -> int:
    """Load and run on one row of zeros; the status."""
    handle, outputs = ctypes.c_void_p(), ctypes.c_void_p()
    options = NativeOptions(provider=b"cpu", threads=1, height=size[0], width=size[1])
    status = library.eightfold_engine_load(os.fsencode(path), ctypes.byref(options), ctypes.byref(handle))
    if not status:
        height, width = size if any(size) else SIZES[0]
        row = (ctypes.c_float * 8)()
        shape = (ctypes.c_int64 * 4)(1, 1, height, width)
        tensor = NativeTensor(data=ctypes.cast(row, ctypes.c_void_p), bytes=32, shape=shape, rank=4)
        status = library.eightfold_engine_run_tensors(handle, ctypes.byref(tensor), 1, ctypes.byref(outputs))
        library.eightfold_tensors_free(outputs)
    library.eightfold_last_error().decode()  # text, whatever was in the bundle
    library.eightfold_engine_free(handle)
    return int(status)


class Watch:
    """Sees every file that Python writes, and complains of those outside of one folder."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in EVENTS or (event == "open" and arguments[2] and arguments[2] & WRITING)
        if self.folder is None or not writes or isinstance(arguments[0], int):
            return
        place = os.path.realpath(_base(event, arguments) / os.fsdecode(arguments[0]))
        if not place.startswith((f"{self.folder}/", "/dev/")):
            self.outside.append(place)


def _base(event: str, arguments: tuple[Any, ...]) -> Path:
    """What a path is relative to: the folder of a descriptor, for the functions that take one last."""
    given = arguments[-1] if event in ("os.mkdir", "os.remove", "os.rmdir", "os.chmod") else -1
    return Path(f"/proc/self/fd/{given}").readlink() if isinstance(given, int) and given >= 0 else Path.cwd()


def run_case(kind: str, seed: str, source: Path, watch: Watch, loader: Callable[[Path], str]) -> str:
    """What came of one case: "accepted", "refused", or "fault: ..."."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        outer = Path(name).resolve()
        for part in ("in", "tmp"):
            (outer / part).mkdir()
        path = CASES[kind](source, outer / "in", rng)
        before = sorted((outer / "in").rglob("*"))
        watch.folder, watch.outside, tempfile.tempdir = str(outer / "tmp"), [], str(outer / "tmp")
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        try:
            outcome = loader(path)
        # Any other exception is what is looked for here.
        except Exception as error:
            print(f"{kind} {seed}: {''.join(traceback.format_exception(error)[-3:])}", flush=True)
            outcome = f"fault: {type(error).__name__}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            watch.folder = tempfile.tempdir = None
        if time.process_time() - start > HANG_S:
            outcome = "fault: over two seconds"
        if watch.outside or sorted((outer / "in").rglob("*")) != before or Path("/tmp/escape").exists():
            print(f"{kind} {seed}: wrote {watch.outside}", flush=True)
            outcome = "fault: wrote outside"
        return outcome


def _raise_hang(*_: object) -> None:
    raise TimeoutError("over two seconds")


def child(kind: str, seeds: list[str], source: Path, results: Connection) -> None:
    """Send the outcome of each case, in Python and, where there is a library, in C++."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _raise_hang)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    watch, library = Watch(), None
    if LIBRARY:
        library = ctypes.CDLL(LIBRARY)
        library.eightfold_last_error.restype = ctypes.c_char_p
    for seed in seeds:
        outcome = run_case(kind, seed, source, watch, load)
        native = None
        if library is not None and kind != "onnx":
            native = run_case(kind, seed, source, watch, lambda path: load_natively(library, path))
            if native != outcome:
                print(f"{kind} {seed}: {outcome} in Python, {native} in C++", flush=True)
        results.send((outcome, native))


def run_children(kind: str, seeds: list[str], source: Path, outcomes: Counter[tuple[str, str, str]]) -> None:
    """Run the cases of `seeds`; after a crash or hang, go on behind the case at fault in a new process."""
    context = multiprocessing.get_context("fork")
    while seeds:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=child, args=(kind, seeds[:PER_CHILD], source, sender))
        process.start()
        sender.close()  # so that the end of the child, however it comes, ends the reading
        done = 0
        try:
            while done < len(seeds[:PER_CHILD]):
                if not receiver.poll(PATIENCE_S):
                    process.kill()
                outcome, native = receiver.recv()
                outcomes[kind, "Python", outcome] += 1
                if native is not None:
                    outcomes[kind, "C++", native] += 1
                    outcomes[kind, "both", "agree" if native == outcome else "differ"] += 1
                done += 1
        except EOFError:
            process.join()
            print(f"{kind} {seeds[done]}: ended by {process.exitcode}", flush=True)
            outcomes[kind, "either", f"fault: crash or hang ({process.exitcode})"] += 1
            done += 1
        process.join()
        seeds = seeds[done:]


def fuzz(cases: int, seed: int) -> Counter[tuple[str, str, str]]:
    outcomes: Counter[tuple[str, str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        make_sound(Path(name))
        per_kind = -(-cases // len(CASES))
        for kind in CASES:
            run_children(kind, [f"{seed}-{kind}-{number}" for number in range(per_kind)], Path(name), outcomes)
    return outcomes


def table(outcomes: Counter[tuple[str, str, str]], seed: int, seconds: float) -> str:
    cases = sum(count for (_, runtime, _), count in outcomes.items() if runtime == "Python")
    faults = sum(count for (*_, outcome), count in outcomes.items() if outcome.startswith("fault"))
    head = f"{cases} cases, seed {seed}, {seconds:.0f} s, {platform.machine()}; {faults} faults"
    rows = [f"| {' | '.join(key)} | {count} |" for key, count in sorted(outcomes.items())]
    return "\n".join(
        ["# Damaged bundles", "", head, "", "| kind | runtime | outcome | cases |", "|---|---|---|---|", *rows]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    start = time.monotonic()
    outcomes = fuzz(options.cases, options.seed)
    text = table(outcomes, options.seed, time.monotonic() - start) + "\n"
    print(text)
    options.result.parent.mkdir(exist_ok=True)
    options.result.write_text(text)
    if any(outcome.startswith("fault") for *_, outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
