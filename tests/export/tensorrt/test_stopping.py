"""A signal in the middle of a build."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eightfold.export.tensorrt.messages import collecting_logger
from eightfold.export.tensorrt.stopping import stoppable
from eightfold.export.torch.onnx_export import export_onnx
from eightfold.extras import require
from tests.export.networks import small_net

pytest.importorskip("tensorrt_rtx")


def interrupt() -> None:
    """What Ctrl-C does. (A real signal would end a process whose matrix unit other tests have used: its state does not
    fit on the stack that libraries give to handlers.)"""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


class Build:
    """A build that is ready to start, with the real builder."""

    def __init__(self, folder: Path) -> None:
        file = export_onnx(small_net(), folder / "net.onnx", batch=1, image_size=16)
        self.trt: Any = require("tensorrt_rtx", "build")
        self.builder = self.trt.Builder(collecting_logger(self.trt, []))
        self.config = self.builder.create_builder_config()
        self.config.num_compute_capabilities = 1
        self.config.set_compute_capability(self.trt.ComputeCapability.SM86, 0)
        self.network = self.builder.create_network(1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        assert self.trt.OnnxParser(self.network, self.builder.logger).parse(file.read_bytes())

    def run(self) -> Any:
        return self.builder.build_serialized_network(self.network, self.config)


def test_the_builder_ends_without_an_engine_and_the_signal_is_handled(tmp_path: Path) -> None:
    build, former = Build(tmp_path), signal.getsignal(signal.SIGINT)
    made = []

    def run() -> None:
        with stoppable(build.trt, build.config):
            interrupt()
            made.append(build.run())

    with pytest.raises(KeyboardInterrupt):
        run()
    assert made == [None]
    assert signal.getsignal(signal.SIGINT) is former


def test_without_a_signal_the_engine_is_made(tmp_path: Path) -> None:
    build = Build(tmp_path)
    with stoppable(build.trt, build.config):
        assert build.run() is not None


def test_a_signal_that_python_does_not_handle_is_left_alone() -> None:
    class Monitor:
        pass

    trt: Any = SimpleNamespace(IProgressMonitor=Monitor)
    with stoppable(trt, SimpleNamespace()):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_builders_without_a_monitor_are_left_alone() -> None:
    config, trt = SimpleNamespace(), cast(Any, SimpleNamespace())
    with pytest.raises(KeyboardInterrupt), stoppable(trt, config):
        interrupt()
    assert vars(config) == {}
