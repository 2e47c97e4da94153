"""What is costly and shared: one whole run of a small recipe, made by the first test process that asks for it. And
what holds for all tests: nothing is timed, on a loaded machine least of all, and every run draws the same examples."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import functools
import importlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A change that fails then fails by what it changed, not by what was drawn. To draw others: --hypothesis-profile=anew
settings.register_profile("anew", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("eightfold", settings.get_profile("anew"), derandomize=True, database=None)
settings.load_profile("eightfold")

WARM = Path(__file__).parent / "warm"
TINY: dict[str, Any] = {
    "name": "tiny",
    "output": "unused",
    "model": {"source": "tiny_classifier:tiny"},
    "data": {"source": "mnist", "train_images": 192, "test_images": 50},
    "preprocess": {"height": 32, "width": 32},
    "train": {"epochs": 1, "batch": 32, "sparsity": 1e-4},
    "compress": {
        "rule": "global",
        "score": "bn_scale",
        "keep_ratio": 0.5,
        "finetune": {"epochs": 1, "batch": 32, "distill": {"logits": 0.5}},
    },
    "export": {"batches": [1, 2]},
    "calibrate": {"images": 16, "method": "minmax"},
    "quantize": {"targets": ["cpu-x86", "rtx:sm86"], "form": "qdq"},
    "engines": {"target": "rtx:sm86", "precisions": ["fp16", "int8"], "batches": [1]},
    "bench": {"backends": ["onnxruntime"], "threads": 1, "seconds_per_row": 0.05},
}


@pytest.fixture(scope="session")
def tiny_recipe() -> dict[str, Any]:
    """The recipe of `tiny_run`, as plain data. A test that changes it changes its own copy."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run, made once for all test processes. Tests read it only."""
    from eightfold.pipeline.run import run
    from eightfold.recipe import recipe_from

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        run(recipe_from(TINY), output=shared / "run")  # does nothing when another process has made it
    return shared / "run"


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A command in place of `sys.executable` for processes of their own that need torch: they start as forks of one
    that has imported it, made once for all test processes. Hashes of strings are the same in all of them."""
    if sys.platform != "linux":
        yield sys.executable
        return
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "warm"
    shared.mkdir(exist_ok=True)
    command, server = shared / "python", None
    with (shared / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if not command.exists():
            address = f"eightfold-{os.getpid()}-{time.monotonic_ns()}"
            server = subprocess.Popen(
                [sys.executable, str(WARM / "server.py"), address],
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
            )
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{WARM}/client.py" {address} "$0" "$@"\n')
            command.chmod(0o755)
    address = command.read_text().rpartition('client.py" ')[2].split()[0]
    with socket.socket(socket.AF_UNIX) as held:
        while True:  # until it listens
            try:
                held.connect(f"\0{address}")
                break
            except ConnectionRefusedError:
                assert server is None or server.poll() is None, "the server of warm processes ended"
                time.sleep(0.01)
        held.sendall(b"h")  # it ends when no test process holds it
        yield str(command)
    if server is not None:
        server.wait()


@pytest.fixture(scope="session", autouse=True)
def _measurements_in_this_process() -> Iterator[None]:
    """A latency measurement starts several processes, which takes far longer than what tests let it measure;
    `tests/runtime/bench` has them back."""
    from eightfold.errors import EightfoldError, first_line
    from eightfold.runtime.backends import open_session
    from eightfold.runtime.bench.peak_memory import MemoryProbe
    from eightfold.runtime.bench.start import run_start

    def probe(path: Path, backend: str, *_: Any) -> MemoryProbe:
        if backend == "openvino":  # which cannot read every form of an INT8 graph
            try:
                open_session(path, backend)
            except EightfoldError as error:
                return MemoryProbe(failed=first_line(error))
        return MemoryProbe(64 << 20)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eightfold.runtime.bench.starts.start_in_process", run_start)
        patch.setattr("eightfold.runtime.bench.bench.probe_memory", probe)
        # Which form of an INT8 graph is faster is asked hundreds of times, and tests of that name their own seconds.
        patch.setattr("eightfold.export.int8.quantize.MEASURED_S", 0.02)
        patch.setattr("eightfold.export.int8.mixed_precision.MEASURED_S", 0.02)
        yield


@pytest.fixture(scope="session", autouse=True)
def _torchlib_read_once() -> Iterator[None]:
    """torch's newer exporter parses the source of its 600 translations anew in every export, which takes a second."""
    from eightfold.export.torch import onnx_export

    plain = onnx_export._EXPORTERS["dynamo"]

    def export(*arguments: Any) -> Any:
        with contextlib.suppress(ImportError, AttributeError):  # a torch that has none of it
            apis: Any = importlib.import_module("torch.onnx._internal.exporter._registration").onnxscript_apis
            if not hasattr(apis.get_torchlib_ops, "cache_info"):
                apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)
        return plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(onnx_export._EXPORTERS, "dynamo", export)
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Whoever starts the tests in the background or under nohup has them ignored, which would go on to what they start
    and is left as it is there."""
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    if fixturedef.scope != "function":
        _seed()


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Networks get the same random weights in every run, whichever tests ran before in this process."""
    _seed()


def _seed() -> None:
    """torch starts with another seed in every process."""
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)
        if torch.cuda.is_initialized():  # before, torch would keep each call, with its stack, for when it is
            torch.cuda.manual_seed_all(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _no_user_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests leave nothing in the caches of whoever runs them."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr("eightfold.runtime.backends.openvino_cache.cache_folder", lambda name: folder)
