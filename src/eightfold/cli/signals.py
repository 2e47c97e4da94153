"""Being asked to end (SIGTERM) or losing the terminal (SIGHUP) is an exit like others: what is unfinished goes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
SHELLS_OFFSET = 128  # what shells add to the number of a signal that ended a process
TERMINATED = tuple(SHELLS_OFFSET + number for number in SIGNALS)


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """SystemExit where these signals would end the process at once, which the second one does. Those that are
    ignored, as under nohup, stay ignored. Changes nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    changed = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(SHELLS_OFFSET + number)
