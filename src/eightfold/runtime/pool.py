"""One loaded model and the buffers of the requests in flight on it, shared by threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from eightfold.runtime.backends.base import Session, Slot


class SlotPool:
    """Hands a slot to one thread at a time. Slots are made when first needed, and never more than `limit`."""

    def __init__(self, session: Session, limit: int) -> None:
        self.session = session
        self._free: list[Slot] = []
        self._places = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[Slot]:
        """Waits while all slots are in use."""
        with self._places:
            slot = self._take()
            try:
                yield slot
            finally:  # also after a failed run: inputs are written anew each time
                with self._lock:
                    self._free.append(slot)

    def _take(self) -> Slot:
        with self._lock:
            if self._free:
                return self._free.pop()
        return self.session.new_slot()
