from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eightfold.errors import BackendError, ImageError, UsageError
from eightfold.runtime.predict.batching_queue import RequestQueue
from eightfold.runtime.predict.predictor import Predictor

# Nothing takes this long, however loaded the machine is; what does, hangs.
HANG_S = 120


class Gate:
    """Squares numbers, once it is opened; keeps the batches it was asked for."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.entered.set()
        self.open.wait(HANG_S)
        self.batches.append(list(items))
        if -1 in items:
            raise ImageError("minus one")
        return [item * item for item in items]


def test_what_waits_together_runs_together() -> None:
    gate = Gate()
    requests = RequestQueue(gate, depth=10, largest=3, workers=1)
    first = requests.put(1)
    gate.entered.wait(HANG_S)
    others = [requests.put(item) for item in (2, 3, 4, 5)]
    gate.open.set()
    assert first.result(HANG_S) == 1
    assert [future.result(HANG_S) for future in others] == [4, 9, 16, 25]
    assert gate.batches == [[1], [2, 3, 4], [5]]
    requests.close()


def test_a_full_queue_is_an_error_in_time() -> None:
    gate = Gate()
    requests = RequestQueue(gate, depth=2, largest=1, workers=1)
    futures = [requests.put(1)]
    gate.entered.wait(HANG_S)
    futures += [requests.put(2), requests.put(3)]
    with pytest.raises(BackendError, match=r"2 requests are waiting already; .*submit more slowly"):
        requests.put(4, timeout=0.01)
    gate.open.set()
    assert [future.result(HANG_S) for future in futures] == [1, 4, 9]
    requests.close()


def test_an_error_reaches_only_its_own_request() -> None:
    gate = Gate()
    requests = RequestQueue(gate, depth=10, largest=8, workers=1)
    requests.put(0)
    gate.entered.wait(HANG_S)
    futures = [requests.put(item) for item in (2, -1, 3)]
    gate.open.set()
    assert (futures[0].result(HANG_S), futures[2].result(HANG_S)) == (4, 9)
    with pytest.raises(ImageError, match="minus one"):
        futures[1].result(HANG_S)
    assert requests.put(5).result(HANG_S) == 25
    requests.close()


def test_a_cancelled_request_is_not_run() -> None:
    gate = Gate()
    requests = RequestQueue(gate, depth=10, largest=8, workers=1)
    requests.put(1)
    gate.entered.wait(HANG_S)
    cancelled = requests.put(2)
    assert cancelled.cancel()
    gate.open.set()
    requests.close()
    assert gate.batches == [[1]]


def test_closing_answers_what_waits() -> None:
    gate = Gate()
    gate.open.set()
    requests = RequestQueue(gate, depth=100, largest=4, workers=2)
    futures = [requests.put(item) for item in range(50)]
    requests.close()
    requests.close()
    assert [future.result(0) for future in futures] == [item * item for item in range(50)]
    with pytest.raises(UsageError, match="closed"):
        requests.put(1)


def test_who_waits_for_a_place_while_closing_gets_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, arrived = Gate(), threading.Semaphore(0)
    requests = RequestQueue(gate, depth=1, largest=1, workers=1)
    futures = [requests.put(1)]
    gate.entered.wait(HANG_S)
    futures.append(requests.put(2))
    put = requests._waiting.put

    def wait_for_a_place(*arguments: Any, **options: Any) -> None:
        arrived.release()
        put(*arguments, **options)

    monkeypatch.setattr(requests._waiting, "put", wait_for_a_place)
    waiting = [threading.Thread(target=lambda: futures.append(requests.put(3))) for _ in range(8)]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        arrived.acquire()
    closing = threading.Thread(target=requests.close)
    closing.start()
    gate.open.set()
    for thread in (*waiting, closing):
        thread.join(HANG_S)
        assert not thread.is_alive()
    assert len(futures) == 10
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures[:2]] == [1, 4]


class TakenAtOnce(queue.Queue[Any]):
    """The place of what ends a worker is taken by requests that waited for one."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.late: Future[Any] = Future()
        self.closing = threading.Event()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if item is None:
            self.closing.set()

    def get_nowait(self) -> Any:
        item = super().get_nowait()
        while item is None and not self.full():
            self.put_nowait((3, self.late))
        return item


def test_a_worker_ends_though_no_place_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = TakenAtOnce(2)
    stand_in = SimpleNamespace(Queue=lambda _: waiting, Empty=queue.Empty, Full=queue.Full)
    monkeypatch.setattr("eightfold.runtime.predict.batching_queue.queue", stand_in)
    gate = Gate()
    requests = RequestQueue(gate, depth=2, largest=3, workers=1)
    first = requests.put(1)
    gate.entered.wait(HANG_S)
    second = requests.put(2)
    closing = threading.Thread(target=requests.close, daemon=True)
    closing.start()
    waiting.closing.wait(HANG_S)
    gate.open.set()
    closing.join(HANG_S)
    assert not closing.is_alive()
    assert (first.result(0), second.result(0), waiting.late.cancelled()) == (1, 4, True)


def test_a_full_predictor_pushes_back_and_forgets_what_was_cancelled(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((9, 9, 3), (255, 0, 0), np.uint8)
    with Predictor(bundle_path, queue=2, in_flight=1) as predictor:
        entered, opened, answer = threading.Event(), threading.Event(), predictor.predict_batch
        seen: list[int] = []

        def slow(images: Sequence[Any]) -> list[Any]:
            entered.set()
            opened.wait(HANG_S)
            seen.append(len(images))
            return answer(images)

        monkeypatch.setattr(predictor, "predict_batch", slow)
        running = predictor.submit(image)
        entered.wait(HANG_S)
        waiting = [predictor.submit(image), predictor.submit(image)]
        with pytest.raises(BackendError, match="2 requests are waiting already; allowed: at most 2"):
            predictor.submit(image, timeout=0.01)
        assert waiting[0].cancel()
        opened.set()
        assert [future.result(HANG_S).label for future in (running, waiting[1])] == ["red"] * 2
    assert seen == [1, 1]


def test_a_failing_backend_fails_its_requests_and_no_others(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((9, 9, 3), (0, 255, 0), np.uint8)
    with Predictor(bundle_path, batch=1) as predictor:
        predictor.warmup()
        failing = [BackendError("the device is gone"), ValueError("a defect of its own")]

        def run(slot: Any) -> None:
            if failing:
                raise failing.pop()
            original(slot)

        slot = predictor._pools[1].take()
        predictor._pools[1].give(slot)
        original = type(slot).run
        monkeypatch.setattr(type(slot), "run", run)
        first, second = predictor.submit(image), predictor.submit(image)
        errors = {type(first.exception(HANG_S)), type(second.exception(HANG_S))}
        assert errors == {BackendError, ValueError}
        assert [future.result(HANG_S).label for future in [predictor.submit(image) for _ in range(4)]] == ["green"] * 4


def test_a_predictor_answers_futures(bundle_path: Path) -> None:
    red, zero = np.full((9, 9, 3), (255, 0, 0), np.uint8), np.zeros((0, 9, 3), np.uint8)
    with Predictor(bundle_path, queue=4) as predictor:
        futures = [predictor.submit(red) for _ in range(20)]
        bad = predictor.submit(zero)
        assert [future.result(HANG_S).label for future in futures] == ["red"] * 20
        with pytest.raises(ImageError, match="zero size"):
            bad.result(HANG_S)


def test_closing_a_predictor_answers_what_was_submitted(bundle_path: Path) -> None:
    image = np.full((9, 9, 3), (0, 255, 0), np.uint8)
    predictor = Predictor(bundle_path)
    futures = [predictor.submit(image) for _ in range(30)]
    predictor.close()
    assert [future.result(0).label for future in futures] == ["green"] * 30
    with pytest.raises(UsageError, match="closed"):
        predictor.submit(image)
    predictor.close()


def test_a_predictor_in_asyncio(bundle_path: Path) -> None:
    async def work(predictor: Predictor) -> list[str]:
        image = np.full((9, 9, 3), (0, 0, 255), np.uint8)
        answers = await asyncio.gather(*(asyncio.wrap_future(predictor.submit(image)) for _ in range(5)))
        return [answer.label for answer in answers]

    with Predictor(bundle_path) as predictor:
        assert asyncio.run(work(predictor)) == ["blue"] * 5
