"""A bounded queue in front of a predictor: requests wait, and those that wait together run together."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from eightfold.errors import BackendError, UsageError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class RequestQueue(Generic[Item, Answer]):
    """Answers items in worker threads.

    Args:
        answer: list of items -> list of results; called by several workers at once.
        depth: items that may wait; one more makes `put` wait.
        largest: at most so many items are answered in one call.
        workers: threads.
    """

    def __init__(
        self, answer: Callable[[Sequence[Item]], Sequence[Answer]], *, depth: int, largest: int, workers: int
    ) -> None:
        self._answer = answer
        self._largest = largest
        self._waiting: queue.Queue[tuple[Item, Future[Answer]] | None] = queue.Queue(depth)  # None ends a worker
        self._closed = self._ended = False
        self._workers = [
            threading.Thread(target=self._work, name=f"eightfold-{number}", daemon=True) for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def put(self, item: Item, timeout: float | None = None) -> Future[Answer]:
        """Queue one item.

        Raises BackendError when the queue stays full for `timeout` seconds (None waits as long as it takes).
        """
        if self._closed:
            raise UsageError("this predictor is closed", allowed="use inside its 'with' block")
        future: Future[Answer] = Future()
        try:
            self._waiting.put((item, future), timeout=timeout)
        except queue.Full:
            raise BackendError(
                f"{self._waiting.maxsize} requests are waiting already",
                allowed=f"at most {self._waiting.maxsize}",
                remedy="submit more slowly, or wait longer with timeout=",
            ) from None
        if self._ended:  # it waited for a place until everybody had left
            self._cancel_rest()
        return future

    def close(self) -> None:
        """Answer what is waiting, then end the workers."""
        if self._closed:
            return
        self._closed = True
        for _ in self._workers:
            self._waiting.put(None)
        for worker in self._workers:
            worker.join()
        self._ended = True
        self._cancel_rest()

    def _cancel_rest(self) -> None:
        """Cancels the requests that arrived while closing."""
        with contextlib.suppress(queue.Empty):
            while True:
                request = self._waiting.get_nowait()
                if request is None:
                    continue
                request[1].cancel()

    def _work(self) -> None:
        more = True
        while more:
            batch, more = self._next_batch()
            self._resolve(batch)

    def _next_batch(self) -> tuple[list[tuple[Item, Future[Answer]]], bool]:
        """Wait for one request, and take along what waits behind it. And whether this worker goes on behind that."""
        taken = [self._waiting.get()]
        with contextlib.suppress(queue.Empty):
            while len(taken) < self._largest and taken[-1] is not None:
                taken.append(self._waiting.get_nowait())
        batch = [request for request in taken if request is not None and request[1].set_running_or_notify_cancel()]
        return batch, taken[-1] is not None

    def _resolve(self, batch: list[tuple[Item, Future[Answer]]]) -> None:
        if not batch:
            return
        try:
            results = self._answer([item for item, _ in batch])
        except Exception as error:  # whatever it is, it belongs to whoever waits for the answer
            self._blame(batch, error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

    def _blame(self, batch: list[tuple[Item, Future[Answer]]], error: Exception) -> None:
        """One bad image must not fail its neighbours: ask for each alone."""
        if len(batch) == 1:
            batch[0][1].set_exception(error)
            return
        for request in batch:
            self._resolve([request])
