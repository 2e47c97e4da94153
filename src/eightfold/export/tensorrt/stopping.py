"""Ctrl-C in the middle of a build. The builder holds the thread for minutes, in which Python's own handlers of signals
do not run; from TensorRT 10.0 on it asks a progress monitor after each of its steps whether to go on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stoppable(trt: ModuleType, config: IBuilderConfig) -> Iterator[None]:
    """Here a signal that Python handles ends a build with `config` soon, without an engine; at the end it is handled as
    it would have been. Changes nothing before 10.0, and outside the main thread, which alone handles signals."""
    if not hasattr(trt, "IProgressMonitor") or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    config.progress_monitor = monitor = _monitor(trt, seen)
    # What Python does not handle ends the process at once, or is ignored.
    handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        del monitor  # which the config does not keep alive by itself
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if seen:
            handlers[signal.Signals(seen[0])](seen[0], None)


def _monitor(trt: ModuleType, seen: list[int]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]  # the base class is known at run time only
        """No exception must go through the builder: the answer says whether to go on."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, *_: Any) -> None:
            """Not wanted, but has to be there."""

        def phase_finish(self, *_: Any) -> None:
            """Likewise."""

        def step_complete(self, *_: Any) -> bool:
            return not seen

    return Monitor()
