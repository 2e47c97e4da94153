from __future__ import annotations

import numpy as np
import pytest

from eightfold.compress.trace.groups import ChannelGraph, Group, Member, Span
from eightfold.errors import UnknownNameError


def flattened(width: int = 16) -> Group:
    """A convolution whose 2x2 map is flattened into a linear layer."""
    return Group(
        "conv.weight",
        width,
        (
            Member("conv.weight", 0, "producer", (Span(0, 0, width),)),
            Member("fc.weight", 1, "consumer", (Span(0, 0, width, 4),)),
        ),
        multiplicities=(1, 4),
    )


def test_span_maps_indices_to_channels() -> None:
    span = Span(start=8, channel=2, length=2, repeat=3)
    assert span.indices().tolist() == [8, 9, 10, 11, 12, 13]
    assert span.channels().tolist() == [2, 2, 2, 3, 3, 3]


def test_removed_indices_follow_the_repeat() -> None:
    member = flattened().members[1]
    assert member.removed(np.arange(1, 16)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("multiplicities", "step"), [((1,), 8), ((4,), 2), ((49,), 8), ((32,), 1), ((1, 4), 8)])
def test_step_makes_every_width_aligned(multiplicities: tuple[int, ...], step: int) -> None:
    group = Group("w", 12, (), multiplicities=multiplicities)
    assert group.step(8) == step
    assert all(step * count % 8 == 0 for count in multiplicities)


def test_wide_convolution_groups_are_aligned_each() -> None:
    assert Group("w", 24, (), multiplicities=(38,)).step(8) == 8


def test_narrow_and_frozen_groups_are_not_prunable() -> None:
    assert not Group("w", 8, ()).prunable(8)
    assert Group("w", 9, ()).prunable(8)
    assert not Group("w", 64, (), frozen="output of the model").prunable(8)


def test_graph_collects_removed_indices() -> None:
    group = flattened()
    graph = ChannelGraph((group,), (), {"conv.weight": (16, 3, 3, 3), "fc.weight": (10, 64)})
    removed = graph.removed_indices({"conv.weight": np.arange(8)})
    assert removed["conv.weight", 0].tolist() == list(range(8, 16))
    assert removed["fc.weight", 1].tolist() == list(range(32, 64))


def test_unknown_group_is_named_with_the_nearest() -> None:
    graph = ChannelGraph((flattened(),), (), {})
    with pytest.raises(UnknownNameError, match=r"did you mean 'conv\.weight'"):
        graph.group("conv.weigth")


def test_describe_counts_what_froze() -> None:
    frozen = Group("head.weight", 10, (), frozen="output of the model")
    text = ChannelGraph((flattened(), frozen), (), {}).describe()
    assert "16 of 26 coupled channels free" in text
    assert "frozen (1 groups): output of the model" in text
