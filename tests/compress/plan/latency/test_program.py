"""The integer program against trying every combination."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.compress.plan.latency.axis import lower_hull
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.compress.plan.latency.choices import (
    BlockChoice,
    WidthChoice,
    allowed_counts,
    choices_by_error,
    choices_by_score,
    smallest_counts,
)
from eightfold.compress.plan.latency.naive import global_plan, uniform_plan
from eightfold.compress.plan.latency.prices import Mixed, PriceFit, PriceLimit, Prices, WeightedPrices, slowest
from eightfold.compress.plan.latency.program import solve_program
from eightfold.compress.plan.latency.widths import GroupWidth, NetworkLayer
from eightfold.compress.trace.groups import Group, Member, Span
from eightfold.errors import UsageError
from eightfold.runtime.bench.profile.layer_shape import LayerShape

CONV = LayerShape(kind="conv", size=(8, 8), kernel=(1, 1))
POOL = LayerShape(kind="max_pool", size=(8, 8), kernel=(2, 2))
COUNTS = (8, 16, 24, 32)


def width(*groups: str, fixed: float = 0.0) -> GroupWidth:
    return GroupWidth(fixed, dict.fromkeys(groups, 1.0), dict.fromkeys(groups, COUNTS[-1]))


def stairs(shape: LayerShape, inputs: float, outputs: float) -> float:
    """Blocks of 16 outputs, and a bend that no sum of two functions of one width has."""
    blocks = -(-outputs // 16)
    return 0.01 * blocks * (inputs**0.8 if shape.two_sided else 1) + 0.02


def network(seed: int, groups: int) -> tuple[tuple[WidthChoice, ...], Prices]:
    """A chain of convolutions with a residual connection, a pooling, and a layer that reads two groups."""
    random = np.random.default_rng(seed)
    names = [f"g{number}" for number in range(groups)]
    layers = [NetworkLayer("stem", CONV, GroupWidth(3.0), width(names[0]))]
    layers += [NetworkLayer(f"{a}-{b}", CONV, width(a), width(b)) for a, b in itertools.pairwise(names)]
    layers += [
        NetworkLayer("back", CONV, width(names[-1]), width(names[0])),
        NetworkLayer("loop", CONV, width(names[0]), width(names[0])),
        NetworkLayer("pool", POOL, width(names[-1]), width(names[-1])),
        NetworkLayer("head", CONV, width(names[-1]), GroupWidth(10.0)),
    ]
    choices = []
    for name in names:
        values = np.sort(-random.exponential(1.0, len(COUNTS)))
        choices.append(WidthChoice(name, COUNTS, tuple(values.tolist())))
    return tuple(choices), Prices(tuple(layers), stairs)


def best(choices: tuple[WidthChoice, ...], prices: Prices, budget: float) -> float | None:
    """By trying everything."""
    found = None
    for counts in itertools.product(COUNTS, repeat=len(choices)):
        kept = dict(zip((choice.group for choice in choices), counts, strict=True))
        if prices.network_ms(kept) <= budget:
            value = sum(choice.value_of(kept[choice.group]) for choice in choices)
            found = value if found is None else max(found, value)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(2, 4), share=st.floats(0.3, 1.0))
def test_no_combination_is_better(seed: int, groups: int, share: float) -> None:
    choices, prices = network(seed, groups)
    budget = share * prices.network_ms({})
    wanted, found = best(choices, prices, budget), solve_program(choices, prices, budget)
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        assert prices.network_ms(found.counts) <= budget * (1 + 1e-6)
        assert found.predicted_ms == pytest.approx(prices.network_ms(found.counts), rel=1e-5)
        assert found.importance >= wanted - 0.01 * abs(wanted) - 1e-6
        assert found.gap <= 0.01


def slow_inputs(shape: LayerShape, inputs: float, outputs: float) -> float:
    """Another device, which minds inputs more than outputs."""
    return float(0.002 * inputs**1.2 + 0.004 * outputs**0.5 + 0.01)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), shares=st.tuples(st.floats(0.4, 1.0), st.floats(0.4, 1.0)))
def test_a_plan_holds_every_limit_and_none_that_does_is_better(seed: int, shares: tuple[float, float]) -> None:
    choices, prices = network(seed, 3)
    other = Prices(prices.layers, slow_inputs)
    budgets = [share * each.network_ms({}) for share, each in zip(shares, (prices, other), strict=True)]
    best_value = None
    for counts in itertools.product(COUNTS, repeat=len(choices)):
        kept = dict(zip((choice.group for choice in choices), counts, strict=True))
        if prices.network_ms(kept) <= budgets[0] and other.network_ms(kept) <= budgets[1]:
            value = sum(choice.value_of(kept[choice.group]) for choice in choices)
            best_value = value if best_value is None else max(best_value, value)
    found = solve_program(choices, prices, budgets[0], further=[PriceLimit(other, budgets[1])])
    assert (found is None) == (best_value is None)
    if found is not None and best_value is not None:
        assert found.further == pytest.approx((other.network_ms(found.counts),), rel=1e-5)
        assert found.further[0] <= budgets[1] * (1 + 1e-6)
        assert prices.network_ms(found.counts) <= budgets[0] * (1 + 1e-6)
        assert found.importance >= best_value - 0.01 * abs(best_value) - 1e-6


def test_weighted_prices_add_up() -> None:
    _, prices = network(1, 3)
    other = Prices(prices.layers, slow_inputs, PriceFit(constant=0.5))
    both = WeightedPrices(((0.25, prices), (2.0, other)))
    counts = {"g0": 16, "g1": 8}
    assert both.network_ms(counts) == pytest.approx(0.25 * prices.network_ms(counts) + 2 * other.network_ms(counts))
    total = both.constant + sum(both.of_layer(layer, *layer.widths(counts)) for layer in both.layers)
    assert total == pytest.approx(both.network_ms(counts))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.5, 1.0))
def test_precisions_and_widths_are_chosen_together(seed: int, share: float) -> None:
    choices, prices = network(seed, 2)
    floats = Prices(prices.layers, lambda shape, i, o: 2.5 * stairs(shape, i, o))
    random = np.random.default_rng(seed)
    damage = {name: -float(random.exponential(0.5)) for name in ("g0-g1", "back", "loop", "head")}
    budget = share * 1.5 * prices.network_ms({})
    wanted = -np.inf
    for counts in itertools.product(COUNTS, repeat=2):
        kept = dict(zip(("g0", "g1"), counts, strict=True))
        ms = {layer.name: prices.of_layer(layer, *layer.widths(kept)) for layer in prices.layers}
        for stays in itertools.product((False, True), repeat=len(damage)):
            in_float = {name for name, here in zip(damage, stays, strict=True) if here}
            if sum(time * (2.5 if name in in_float else 1) for name, time in ms.items()) <= budget:
                value = sum(choice.value_of(kept[choice.group]) for choice in choices)
                wanted = max(wanted, value + sum(each for name, each in damage.items() if name not in in_float))
    found = solve_program(choices, prices, budget, mixed=Mixed(floats, damage))
    assert found is not None
    ms = {layer.name: prices.of_layer(layer, *layer.widths(found.counts)) for layer in prices.layers}
    took = sum(time * (2.5 if name in found.keep_float else 1) for name, time in ms.items())
    assert took == pytest.approx(found.predicted_ms, rel=1e-5)
    assert took <= budget * (1 + 1e-6)
    assert set(found.keep_float) <= set(damage)
    assert found.importance >= wanted - 0.01 * abs(wanted) - 1e-6


def test_a_block_that_goes_needs_no_precision() -> None:
    layers = (
        NetworkLayer("first", CONV, GroupWidth(3.0), width("a")),
        NetworkLayer("inner", CONV, width("a"), width("a")),
    )
    prices = Prices(layers, lambda shape, i, o: 0.001 * i * o)
    choices = (WidthChoice("a", COUNTS, (-9.0, -6.0, -3.0, 0.0)),)
    mixed = Mixed(Prices(layers, lambda shape, i, o: 0.003 * i * o), {"inner": -4.0})
    block = BlockChoice("block", frozenset({"inner"}), -0.5)
    found = solve_program(choices, prices, 1.01 * prices.of_layer(layers[0], 3, 32), blocks=[block], mixed=mixed)
    assert found is not None
    assert (found.removed, found.counts) == (("block",), {"a": 32})
    assert found.importance == pytest.approx(-0.5)


def test_a_budget_below_the_smallest_widths_has_no_plan() -> None:
    choices, prices = network(0, 3)
    assert solve_program(choices, prices, 0.99 * prices.network_ms(smallest_counts(choices))) is None


def test_concatenated_inputs_follow_the_sum_of_their_groups() -> None:
    both = width("a", "b", fixed=4.0)
    layers = (NetworkLayer("joint", CONV, both, width("c")), NetworkLayer("a", CONV, GroupWidth(3.0), width("a")))
    prices = Prices(layers, lambda shape, i, o: 0.001 * i * o)
    choices = tuple(WidthChoice(name, COUNTS, (-3.0, -2.0, -1.0, 0.0)) for name in "abc")
    found = solve_program(choices, prices, 0.5 * prices.network_ms({}))
    assert found is not None
    assert prices.network_ms(found.counts) <= 0.5 * prices.network_ms({}) * 1.001
    assert found.predicted_ms == pytest.approx(prices.network_ms(found.counts), rel=0.01)


@given(ms=st.lists(st.floats(1, 100), min_size=1, max_size=7))
def test_the_hull_keeps_the_cheapest_mean_at_every_width(ms: list[float]) -> None:
    widths = np.cumsum(np.linspace(1, 3, len(ms))).tolist()
    hull = lower_hull(widths, ms)
    for n, width_here in enumerate(widths):
        means = [ms[n]]
        for i, k in itertools.combinations(range(len(ms)), 2):
            if i <= n <= k:
                share = (width_here - widths[i]) / (widths[k] - widths[i])
                means.append((1 - share) * ms[i] + share * ms[k])
        found = np.interp(width_here, [widths[i] for i in hull], [ms[i] for i in hull])
        assert found >= min(means) - 1e-9
        assert found <= min(means) * 1.005


def test_points_on_a_line_are_left_out_and_a_bend_stays() -> None:
    assert lower_hull([0, 10, 20, 30], [1.0, 2.0, 3.0, 4.0]) == [0, 3]
    assert lower_hull([0, 10, 20, 30], [1.0, 1.0, 2.0, 4.0]) == [0, 1, 2, 3]


def test_a_concatenation_takes_the_best_of_all_combinations() -> None:
    joint = NetworkLayer("joint", CONV, width("a", "b", fixed=8.0), width("c"))
    stems = [NetworkLayer(name, CONV, GroupWidth(3.0), width(name)) for name in "ab"]
    prices = Prices((joint, *stems), lambda shape, i, o: 0.001 * i * o + 0.02 * (o > 16))
    random = np.random.default_rng(1)
    choices = tuple(WidthChoice(n, COUNTS, tuple(np.sort(-random.exponential(1, 4)).tolist())) for n in "abc")
    for share in (0.3, 0.5, 0.8):
        budget = share * prices.network_ms({})
        found = solve_program(choices, prices, budget)
        assert found is not None
        assert found.importance == pytest.approx(best(choices, prices, budget), abs=0.01)


def test_a_block_that_goes_costs_nothing_and_saves_its_layers() -> None:
    layers = (
        NetworkLayer("first", CONV, GroupWidth(3.0), width("a")),
        NetworkLayer("inner1", CONV, width("a"), width("b")),
        NetworkLayer("inner2", CONV, width("b"), width("a")),
    )
    prices = Prices(layers, lambda shape, i, o: 0.001 * i * o)
    choices = (WidthChoice("a", COUNTS, (-9.0, -6.0, -3.0, 0.0)), WidthChoice("b", COUNTS, (-3.0, -2.0, -1.0, 0.0)))
    block = BlockChoice("block", frozenset({"inner1", "inner2"}), -0.5)
    budget = 1.01 * prices.of_layer(layers[0], 3, 32)
    found = solve_program(choices, prices, budget, blocks=[block])
    assert found is not None
    assert found.removed == ("block",)
    assert found.counts["a"] == 32
    kept = solve_program(choices, prices, prices.network_ms({}), blocks=[block])
    assert kept is not None
    assert kept.removed == ()


def test_the_fit_finds_what_a_network_adds_to_its_layers() -> None:
    choices, prices = network(3, 3)
    truth = Prices(prices.layers, prices.time, PriceFit(1.3, 1.1, 40.0, 0.5))
    random = np.random.default_rng(0)
    plans = [{choice.group: int(random.choice(COUNTS)) for choice in choices} for _ in range(8)]
    fitted = prices.fitted([(plan, truth.network_ms(plan)) for plan in plans[:6]])
    for plan in plans[6:]:
        assert fitted.network_ms(plan) == pytest.approx(truth.network_ms(plan), rel=0.02)
    assert fitted.fit.error < 0.02


def test_the_slowest_layers_come_first() -> None:
    _, prices = network(0, 3)
    names = [name for name, _ in slowest(prices, {})]
    times = {layer.name: prices.of_layer(layer, *layer.widths({})) for layer in prices.layers}
    assert names == sorted(times, key=lambda name: -times[name])[:3]


def group(name: str, size: int) -> Group:
    return Group(name, size, ())


def test_counts_are_whole_blocks_where_a_group_has_enough_of_them() -> None:
    assert allowed_counts(group("wide", 128), 8, 16) == (16, 32, 48, 64, 80, 96, 112, 128)
    assert allowed_counts(group("narrow", 32), 8, 16) == (8, 16, 24, 32)
    assert allowed_counts(group("odd", 100), 8)[-2:] == (96, 100)
    assert len(allowed_counts(group("huge", 4096), 8)) == 10


def test_more_channels_are_worth_more_and_none_is_worth_nothing() -> None:
    (choice,) = choices_by_score([group("g", 32)], {"g": np.arange(32.0)}, 8)
    assert list(choice.values) == sorted(choice.values)
    assert choice.values[-1] == pytest.approx(0.0)


def test_a_group_counts_for_every_layer_that_reads_it() -> None:
    readers = tuple(Member(name, 1, "consumer", (Span(0, 0, 32),)) for name in ("a.weight", "b.weight", "c.weight"))
    stream, inner = Group("stream", 32, readers), Group("inner", 32, readers[:1])
    scores = {"stream": np.ones(32), "inner": np.ones(32)}
    wide, narrow = choices_by_score([stream, inner], scores, 8)
    assert (wide.weight, narrow.weight) == (3, 1)
    assert wide.value_of(16) == pytest.approx(3 * narrow.value_of(16))


def test_naive_plans_keep_their_share_of_the_channels() -> None:
    choices, _ = network(5, 4)
    assert uniform_plan(choices, 0.5) == dict.fromkeys(("g0", "g1", "g2", "g3"), 16)
    for share in (0.3, 0.5, 0.75, 1.0):
        found = global_plan(choices, share)
        kept = sum(found.values())
        assert kept >= share * 4 * COUNTS[-1]
        value = sum(choice.value_of(found[choice.group]) for choice in choices)
        for counts in itertools.product(COUNTS, repeat=4):  # none with as few channels is worth more
            if sum(counts) <= kept:
                each = sum(c.value_of(n) for c, n in zip(choices, counts, strict=True))
                assert each <= value + 1e-9


def test_no_naive_plan_is_worth_more_at_its_latency() -> None:
    choices, prices = network(5, 4)
    for share in (0.5, 0.75):
        for naive in (uniform_plan(choices, share), global_plan(choices, share)):
            best_plan = solve_program(choices, prices, prices.network_ms(naive) * (1 + 1e-6))
            assert best_plan is not None
            value = sum(choice.value_of(naive[choice.group]) for choice in choices)
            assert best_plan.importance >= value - 0.01 * abs(value)


def test_a_count_that_the_caller_gave_is_the_only_one() -> None:
    (choice,) = choices_by_score([group("g", 32)], {"g": np.ones(32)}, 8, fixed={"g": 24})
    assert choice.counts == (24,)


def test_measured_errors_take_the_place_of_scores() -> None:
    groups = [group("g", 16), group("h", 16)]
    choices = choices_by_score(groups, {"g": np.ones(16), "h": np.ones(16)}, 8)
    found = choices_by_error(groups, {"g": {8: 0.25, 16: 0.0}}, choices)
    assert found[0].values == (-0.25, 0.0)
    assert found[1] == choices[1]


@pytest.mark.parametrize(
    ("text", "budget"),
    [("0.5x", LatencyBudget(share=0.5)), ("12ms", LatencyBudget(ms=12.0)), (" 3.5 ms", LatencyBudget(ms=3.5)),
     (0.7, LatencyBudget(share=0.7))],
)  # fmt: skip
def test_budgets_are_shares_or_milliseconds(text: str | float, budget: LatencyBudget) -> None:
    assert LatencyBudget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "half", "0x", "1x", "1.5x", "-3ms", "12 s", "nan", 2.0])
def test_other_budgets_are_refused(text: str | float) -> None:
    with pytest.raises(UsageError, match="a latency budget of"):
        LatencyBudget.parse(text)
