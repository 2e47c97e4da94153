"""One loaded model and the buffers of the requests in flight on it, shared by threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from queue import SimpleQueue

from eightfold.runtime.backends.base import Session, Slot


class SlotPool:
    """Hands a slot to one thread at a time. Slots are made when first needed, and never more than `limit`.

    Whoever may have a slot holds one of `limit` permits. Both the queue of permits and the list of free slots are used
    by single operations that are atomic, which costs a tenth of a semaphore and a lock.
    """

    def __init__(self, session: Session, limit: int) -> None:
        self.session = session
        self._free: list[Slot] = []
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(limit):
            self._permits.put(None)

    def take(self) -> Slot:
        """A slot for this thread, which gives it back with `give`. Waits while all are in use."""
        self._permits.get()
        try:
            return self._free.pop()  # the one used last, whose memory is most likely still in a cache
        except IndexError:
            return self._new()

    def give(self, slot: Slot) -> None:
        """Take a slot back, also after a failed run: each run writes all inputs."""
        self._free.append(slot)
        self._permits.put(None)

    @contextlib.contextmanager
    def slot(self) -> Iterator[Slot]:
        """`take` and `give` around a block."""
        slot = self.take()
        try:
            yield slot
        finally:
            self.give(slot)

    def _new(self) -> Slot:
        try:
            return self.session.new_slot()
        except BaseException:
            self._permits.put(None)
            raise
