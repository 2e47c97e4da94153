from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eightfold.errors import UsageError
from eightfold.runtime.bench.interleave import ROUNDS_OF_START, Samples, Schedule, WarmUp, alternate, warm_up


class Machine:
    """A clock that moves only when a call is made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float | Callable[[int], float]) -> Callable[[], None]:
        def run() -> None:
            self.log.append(name)
            self.now += seconds if isinstance(seconds, float) else seconds(self.log.count(name))

        return run


def test_candidates_take_turns_and_every_round_has_each() -> None:
    machine = Machine()
    calls = {"slow": machine.call("slow", 0.02), "fast": machine.call("fast", 0.01)}
    samples = alternate(calls, Schedule(seconds=1.0, rounds=4, block_s=0.1), clock=machine.clock)
    assert len(samples["slow"].times_s) == len(samples["fast"].times_s)
    assert samples["slow"].times_s.shape[1] == 5
    assert samples["fast"].times_s.shape[1] == 10
    assert samples["slow"].times_s == pytest.approx(0.02)
    assert samples["fast"].times_s.sum() >= 1.0


def test_each_block_opens_with_a_call_that_is_not_timed() -> None:
    machine = Machine()
    calls = {"a": machine.call("a", 0.01)}
    samples = alternate(calls, Schedule(seconds=0.15, rounds=3, block_s=0.05), clock=machine.clock)
    timed = samples["a"].times_s.size
    assert machine.log.count("a") == samples["a"].warm_up.runs + timed + 3


def test_the_order_of_candidates_changes_from_round_to_round() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 0.1) for name in "abc"}
    alternate(calls, Schedule(seconds=0.1, rounds=10), clock=machine.clock)
    measured = machine.log[-10 * 3 * 3 :]
    orders = {tuple(measured[start : start + 9 : 3]) for start in range(0, len(measured), 9)}
    assert len(orders) > 1
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_a_warm_up_ends_when_the_time_has_settled() -> None:
    machine = Machine()
    state = warm_up(machine.call("a", lambda count: max(0.01, 0.05 - 0.002 * count)), Schedule(), machine.clock)
    assert state.stable
    assert state.call_s == pytest.approx(0.01)
    assert state.seconds < 1.0


def test_a_warm_up_that_never_settles_ends_and_says_so() -> None:
    machine = Machine()
    state = warm_up(machine.call("a", lambda count: 0.001 * 1.05**count), Schedule(), machine.clock)
    assert not state.stable


def test_a_call_that_fails_is_not_swallowed() -> None:
    def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        alternate({"a": fail})


def samples(interrupted: list[list[bool]]) -> Samples:
    marks = np.array(interrupted)
    return Samples(np.where(marks, 5.0, 1.0), WarmUp(1, 1.0, True, 1.0), marks)


def test_interrupted_calls_are_left_out_of_comparisons() -> None:
    found = samples([[True, False], [False, False], [False, True], [True, True]])
    assert np.nanmax(found.uninterrupted_s) == 1.0
    assert np.isnan(found.uninterrupted_s).sum() == 4


def test_where_hardly_a_call_was_left_alone_all_count() -> None:
    found = samples([[True, False], [False, False], [True, True], [True, True]])
    assert not np.isnan(found.uninterrupted_s).any()


def test_an_interruption_is_that_of_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's counter rises during every third call."""
    machine = Machine()
    monkeypatch.setattr("eightfold.runtime.bench.interleave._preemptions", lambda: machine.log.count("a") // 3)
    found = alternate({"a": machine.call("a", 0.01)}, Schedule(seconds=0.3, rounds=3), clock=machine.clock)["a"]
    count = found.times_s.size
    assert found.interrupted.sum() == pytest.approx(count / 3, abs=len(found.times_s))


def test_a_start_has_its_part_of_the_time_and_an_order_of_its_own() -> None:
    whole = Schedule(seconds=6.0, rounds=30)
    part = whole.of_start(2)
    assert (part.seconds, part.rounds, part.seed, part.start_count) == (1.0, ROUNDS_OF_START, 2, 1)
    assert Schedule(seconds=0.5).start_count == 1


def test_starts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="0 starts; allowed: 1 or more"):
        Schedule(starts=0)
