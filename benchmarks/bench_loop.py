"""Checks `bench` against the truth that is at hand: a bare loop, and a network against itself.

Usage: python benchmarks/bench_loop.py [--seconds 6]

Two lines for each network and number of threads, MobileNetV2 at 64x64 and 128x128 with random weights:

- the median of `bench`'s own loop over that of a loop of perf_counter and onnxruntime's `run_with_iobinding`, on one
  session, in short turns, of calls that the kernel did not interrupt on either side; the bar is 2%;
- the same file twice in one `bench`, while another process computes on the first core without pause; the bar is a
  ratio within 3% of 1.

The table is printed and kept in benchmarks/results/bench_loop.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision

import eightfold as ef
from eightfold.runtime.backends import open_session
from eightfold.runtime.backends.base import SessionOptions
from eightfold.runtime.backends.ort import OrtSession
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import Candidate
from eightfold.runtime.bench.interleave import Schedule, alternate
from eightfold.runtime.bench.placement import pin_thread, restored_affinity, select_cores
from eightfold.runtime.devices.devices import describe_device, read_state
from eightfold.text_table import text_table

RESULT = Path(__file__).parent / "results" / "bench_loop.md"
SIZES, TURN_S = (64, 128), 0.1
LOOP_BAR, RATIO_BAR = 0.02, 0.03
# Computes without pause on one core.
LOAD = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


@dataclass(frozen=True)
class Line:
    """One check."""

    what: str
    measured: float
    shown: str
    bar: float

    @property
    def cells(self) -> tuple[str, ...]:
        holds = "holds" if abs(self.measured - 1) <= self.bar else "MISSED"
        return self.what, self.shown, f"1 +- {self.bar:.0%}", holds


def make_network(folder: Path, size: int) -> Path:
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    return ef.simplify(ef.export_onnx(network, folder / f"mobilenet_v2-{size}.onnx", batch=1, image_size=size))


def against_bare_loop(path: Path, threads: int, seconds: float) -> Line:
    """Medians over all turns; each side has every second turn."""
    cores = select_cores()
    with restored_affinity():
        session = open_session(path, "onnxruntime", SessionOptions(threads=threads, cores=cores))
        assert isinstance(session, OrtSession)
        slot, (given,), (answer,) = session.new_slot(), session.inputs, session.outputs
        rows = np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
        np.copyto(slot.inputs[given.name], rows)
        binding, result = session.raw.io_binding(), np.empty(answer.shape, np.float32)
        binding.bind_cpu_input(given.name, rows)
        binding.bind_output(answer.name, "cpu", 0, np.float32, result.shape, result.ctypes.data)
        pin_thread(cores[:1])
        ours, bare = list[tuple[float, bool]](), list[tuple[float, bool]]()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            turn = Schedule(seconds=TURN_S, rounds=1, block_s=TURN_S, warmup_s=TURN_S / 10)
            samples = alternate({"it": slot.run}, turn)["it"]
            ours += zip(samples.times_s.ravel().tolist(), samples.interrupted.ravel().tolist(), strict=True)
            stop = time.perf_counter() + TURN_S
            while time.perf_counter() < stop:
                count, begin = switches(), time.perf_counter()
                session.raw.run_with_iobinding(binding)
                bare.append((time.perf_counter() - begin, switches() > count))
    everything = np.median([took for took, _ in ours]) / np.median([took for took, _ in bare])
    # On a busy machine every call of a long network is interrupted; then all count.
    quiet = [[took for took, interrupted in side if not interrupted] for side in (ours, bare)]
    medians = [
        np.median(side) for side in (quiet if all(quiet) else [[took for took, _ in ours], [took for took, _ in bare]])
    ]
    shown = f"{1e3 * medians[0]:.4f} / {1e3 * medians[1]:.4f} ms = {medians[0] / medians[1]:.4f}"
    shown += f" (of all calls: {everything:.4f})"
    return Line(f"{path.stem}, threads: {threads}: bench / bare loop", float(medians[0] / medians[1]), shown, LOOP_BAR)


def switches() -> int:
    """How often the kernel took a core from this program."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def against_itself(path: Path, threads: int, seconds: float) -> Line:
    """The ratio of one file to itself, beside a load on one core."""
    twice = [Candidate(name, path, 1) for name in ("first", "second")]
    options = BenchOptions(Schedule(seconds), SessionOptions(threads=threads), memory=False)
    with load_on(min(os.sched_getaffinity(0))):
        table = compare_latency(twice, options=options)
    ratio = table.row("second", 1).speedup
    assert ratio is not None
    shown = f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}]"
    return Line(f"{path.stem}, threads: {threads}: itself beside a load on one core", ratio.value, shown, RATIO_BAR)


@contextlib.contextmanager
def load_on(core: int) -> Iterator[None]:
    """A process that computes on that core all the time."""
    busy = subprocess.Popen([sys.executable, "-c", LOAD, str(core)])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="timed seconds of each side")
    seconds = parser.parse_args().seconds
    before, lines = read_state(), []
    with tempfile.TemporaryDirectory() as folder:
        for path in [make_network(Path(folder), size) for size in SIZES]:
            for threads in (1, 2):
                lines += [against_bare_loop(path, threads, 2 * seconds), against_itself(path, threads, seconds)]
    others = read_state().others_since(before) or 0.0
    head = ("check", "measured", "bar", "")
    text = "\n".join(
        [
            f"{describe_device().line()}; other work kept {others:.1f} cores busy, the load and its rival included",
            *text_table([head, *(line.cells for line in lines)], left={0, 1}),
        ]
    )
    print(text)
    RESULT.write_text(f"# benchmarks/bench_loop.py\n\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
