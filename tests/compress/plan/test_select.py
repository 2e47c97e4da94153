"""Selection on hand-made graphs: every rule against its definition, every count against its constraints."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eightfold.compress.plan.select import LayerRange, Rounding, Selection, round_count, select
from eightfold.compress.plan.selection_rules import RULES, Merge, merged, suggested_limit, threshold, voted
from eightfold.compress.trace.groups import ChannelGraph, Group, Member, Span
from eightfold.errors import UnknownNameError, UsageError

Matrix = npt.NDArray[np.float64]


def group(name: str, width: int, *, makers: int = 1, frozen: str = "") -> Group:
    span = (Span(0, 0, width),)
    members = tuple(Member(f"{name}.{i}.weight", 0, "producer", span) for i in range(makers))
    return Group(f"{name}.0.weight", width, members, frozen=frozen)


def graph_of(*groups: Group) -> ChannelGraph:
    return ChannelGraph(groups, (), {})


def kept_of(graph: ChannelGraph, scores: dict[str, Matrix], **options: object) -> dict[str, list[int]]:
    selection = Selection.model_validate({"multiple": 1, **options})
    return {name: channels.tolist() for name, channels in select(graph, scores, selection).items()}


def rising(width: int, layers: int = 1) -> Matrix:
    return np.tile(np.arange(1.0, width + 1), (layers, 1))


def test_uniform_keeps_the_best_share_of_each_group() -> None:
    graph = graph_of(group("a", 8), group("b", 4))
    scores = {"a.0.weight": rising(8), "b.0.weight": rising(4)[:, ::-1]}
    assert kept_of(graph, scores) == {"a.0.weight": [4, 5, 6, 7], "b.0.weight": [0, 1]}


def test_global_keeps_the_share_of_equal_scores_that_was_asked_for() -> None:
    graph = graph_of(group("a", 8), group("b", 16))
    equal = {"a.0.weight": np.ones((1, 8)), "b.0.weight": np.ones((1, 16))}
    assert kept_of(graph, equal, rule="global", keep_ratio=0.25) == {"a.0.weight": [0, 1], "b.0.weight": [0, 1, 2, 3]}
    scores = {"a.0.weight": rising(8), "b.0.weight": rising(16)}
    counts = [len(kept) for kept in kept_of(graph, scores, rule="global", keep_ratio=0.5).values()]
    assert sum(counts) == 12


def test_normal_leaves_coupled_groups_whole_and_takes_the_threshold_itself() -> None:
    graph = graph_of(group("a", 4), group("b", 4), group("sum", 4, makers=2))
    scores = {"a.0.weight": np.array([[1.0, 2, 3, 4]]), "b.0.weight": np.array([[5.0, 6, 7, 8]])}
    scores["sum.0.weight"] = rising(4, 2)
    # Pool 1..8, index 8 * (1 - 0.625) = 3: the threshold is 4, and 4 itself stays.
    assert kept_of(graph, scores, rule="normal", keep_ratio=0.625) == {"a.0.weight": [3], "b.0.weight": [0, 1, 2, 3]}


@pytest.mark.parametrize("rule", ["normal", "regular", "shortcut"])
def test_scores_of_zero_go_even_where_more_than_asked_for_are_zero(rule: str) -> None:
    """The threshold of half of the channels is 0 here: all would reach it."""
    graph = graph_of(group("a", 4), group("b", 4))
    scores = {"a.0.weight": np.array([[0.0, 0, 3, 0]]), "b.0.weight": np.array([[0.0, 6, 0, 8]])}
    assert kept_of(graph, scores, rule=rule, keep_ratio=0.5) == {"a.0.weight": [2], "b.0.weight": [1, 3]}


def test_regular_rounds_up_and_never_above_the_width() -> None:
    graph = graph_of(group("a", 24), group("b", 24))
    scores = {"a.0.weight": rising(24), "b.0.weight": rising(24) + 100}
    kept = kept_of(graph, scores, rule="regular", keep_ratio=0.7, multiple=16)
    assert {name: len(channels) for name, channels in kept.items()} == {"a.0.weight": 16, "b.0.weight": 16}


def test_shortcut_copies_the_first_layers_mask() -> None:
    graph = graph_of(group("sum", 4, makers=2))
    scores = {"sum.0.weight": np.array([[1.0, 9, 2, 8], [9.0, 1, 9, 1]])}
    assert kept_of(graph, scores, rule="shortcut") == {"sum.0.weight": [1, 3]}


def test_slim_is_strict_and_keeps_a_floor_of_each_layer() -> None:
    graph = graph_of(group("a", 4), group("b", 4))
    scores = {"a.0.weight": np.array([[1.0, 2, 3, 4]]), "b.0.weight": np.array([[5.0, 6, 7, 8]])}
    # Pool 1..8, index 4: the threshold is 5, and 5 itself goes; layer a keeps its floor of one.
    kept = kept_of(graph, scores, rule="slim", keep_ratio=0.5)
    assert kept == {"a.0.weight": [3], "b.0.weight": [1, 2, 3]}
    assert kept_of(graph, scores, rule="slim", layer_keep=0.5)["a.0.weight"] == [2, 3]


@pytest.mark.parametrize(
    ("merge", "expected"), [("union", [0, 1, 2]), ("intersection", [1]), ("least", [1, 2]), ("most", [0, 1])]
)
def test_merges_of_two_votes(merge: Merge, expected: list[int]) -> None:
    votes = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], dtype=bool)
    votes = votes if merge != "least" else np.array([[1, 1, 1, 0], [0, 1, 1, 0]], dtype=bool)
    assert np.flatnonzero(merged(votes, merge)[0]).tolist() == expected


def test_the_two_schemes_for_depthwise_layers() -> None:
    """An expansion and its depthwise layer, each with its own opinion: scheme 1 keeps as many as the larger vote,
    scheme 2 removes only what both agree on."""
    layers = np.array([[9.0, 9, 9, 1, 1, 1], [1.0, 1, 9, 9, 1, 1]])
    scheme_1, scheme_2 = voted(layers, 5.0, 0.01, "most"), voted(layers, 5.0, 0.01, "union")
    assert (scheme_1.count, scheme_2.count) == (3, 4)
    assert set(np.argsort(-scheme_2.order)[:4]) == {0, 1, 2, 3}


def test_a_range_has_a_pool_of_its_own() -> None:
    graph = graph_of(group("a", 4), group("b", 4), group("c", 4))
    scores = {f"{name}.0.weight": rising(4) * scale for name, scale in (("a", 1), ("b", 100), ("c", 1))}
    ranges = (LayerRange(until=1, keep_ratio=0.25), LayerRange(until=2, keep_ratio=0.5))
    kept = kept_of(graph, scores, rule="normal", ranges=ranges)
    assert kept == {"a.0.weight": [3], "b.0.weight": [2, 3]}


def test_layer_keeps_every_channel() -> None:
    assert kept_of(graph_of(group("a", 4)), {"a.0.weight": rising(4)}, rule="layer") == {}


def test_explicit_ratios_win_over_the_rule_and_the_last_match_counts() -> None:
    graph = graph_of(group("body.a", 8), group("body.b", 8), group("head", 8))
    scores = {g.id: rising(8) for g in graph.groups}
    kept = kept_of(graph, scores, keep={"body.*": 0.25, "body.b.0": 0.75})
    assert [len(channels) for channels in kept.values()] == [2, 6, 4]


def test_wrong_names_and_ratios_are_told_plainly() -> None:
    graph, scores = graph_of(group("a", 8)), {"a.0.weight": rising(8)}
    with pytest.raises(UnknownNameError, match="unknown rule 'unifrom'"):
        kept_of(graph, scores, rule="unifrom")
    with pytest.raises(UnknownNameError, match="unknown parameter 'b"):
        kept_of(graph, scores, keep={"b": 0.5})
    with pytest.raises(UsageError, match="keep ratio"):
        kept_of(graph, scores, keep={"a.0": 1.5})


def test_ignored_and_frozen_groups_stay_whole() -> None:
    graph = graph_of(group("a", 8), group("c", 8, frozen="output"), group("d", 8))
    scores = {g.id: rising(8) for g in graph.free}
    assert list(kept_of(graph, scores, ignore=("d.*",))) == ["a.0.weight"]


@pytest.mark.parametrize(
    ("rounding", "expected"), [("nearest", [8, 8, 16, 16]), ("up", [8, 16, 16, 16]), ("down", [8, 8, 8, 16])]
)
def test_rounding(rounding: Rounding, expected: list[int]) -> None:
    wide = group("a", 20)
    assert [round_count(wanted, wide, 8, rounding) for wanted in (0.0, 9.0, 13.0, 20.0)] == expected


def test_threshold_of_nothing_lets_everything_stay() -> None:
    assert threshold([], 0.5) == -np.inf


def test_suggested_limit_empties_no_layer() -> None:
    scores = {"a": np.array([[1.0, 2, 3]]), "b": np.array([[2.5, 9, 9]])}
    limit = suggested_limit(scores)
    assert limit.threshold == 3
    assert limit.removable == pytest.approx(3 / 6)


widths = st.lists(st.integers(1, 70), min_size=1, max_size=6)


@settings(deadline=None, max_examples=150)
@given(
    widths=widths,
    rule=st.sampled_from(sorted(RULES)),
    ratio=st.floats(0.01, 1.0),
    multiple=st.sampled_from([1, 8, 16]),
    seed=st.integers(0, 1000),
    merge=st.sampled_from(["union", "intersection", "least", "most"]),
)
def test_every_selection_is_aligned_ordered_and_not_empty(
    widths: list[int], rule: str, ratio: float, multiple: int, seed: int, merge: Merge
) -> None:
    random = np.random.default_rng(seed)
    groups = [group(f"g{i}", width, makers=1 + i % 2) for i, width in enumerate(widths)]
    graph = graph_of(*groups)
    scores = {g.id: random.random((len(g.members), g.width)) for g in groups}
    selection = Selection(rule=rule, keep_ratio=ratio, multiple=multiple, merge=merge)
    kept = select(graph, scores, selection)
    for name, channels in kept.items():
        owner = graph.group(name)
        assert 0 < len(channels) <= owner.width
        assert len(channels) % owner.step(multiple) == 0
        assert np.all(np.diff(channels) > 0)


@pytest.mark.parametrize("ignore", [("nope",), ("d.*", "nope"), ("nope.*",)])
def test_a_name_to_ignore_that_no_layer_has(ignore: tuple[str, ...]) -> None:
    graph = graph_of(group("a", 8), group("d", 8))
    scores = {g.id: rising(8) for g in graph.groups}
    with pytest.raises(UnknownNameError, match="unknown parameter 'nope"):
        kept_of(graph, scores, ignore=ignore)
