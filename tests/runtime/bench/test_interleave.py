from __future__ import annotations

from collections.abc import Callable

import pytest

from eightfold.runtime.bench.interleave import Schedule, alternate, warm_up


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
