"""Rows times weights must be the layer itself: torch's own convolutions are the oracle."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eightfold.compress.least_squares.patches import (
    Geometry,
    Positions,
    input_rows,
    output_rows,
    weight_from_matrix,
    weight_matrix,
)

torch.manual_seed(0)  # tests are seeded each for themselves; this is for what the module draws
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d


def geometry_of(conv: Conv) -> Geometry:
    assert not isinstance(conv.padding, str)
    return Geometry(conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.transposed, conv.groups)


def assert_rows_reproduce(conv: Conv, x: Tensor, limit: int = 10_000) -> None:
    y = conv(x)
    geometry = geometry_of(conv)
    positions = Positions.sample(y.shape, limit, seed=1)
    rows = input_rows(x, geometry, positions)
    made = rows @ weight_matrix(conv.weight, geometry)
    torch.testing.assert_close(made, output_rows(y, positions, conv.groups), rtol=1e-9, atol=1e-9)
    assert rows.shape[1] == min(limit, y.numel() // y.shape[1])


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    transposed=st.booleans(),
    multiplier=st.sampled_from([1, 3]),
)
def test_rows_times_weights_are_the_convolution(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, transposed: bool, multiplier: int
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv = kind(
        4, 4 * multiplier, kernel, stride, padding, dilation=dilation, groups=groups, bias=False, dtype=torch.float64
    )
    assert_rows_reproduce(conv, torch.randn(2, 4, 11, 9, dtype=torch.float64))


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, bias=False), (7,)),
        (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1), bias=False), (3, 4, 5)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, bias=False), (5,)),
    ],
)
def test_other_dimensions(conv: Conv, size: tuple[int, ...]) -> None:
    conv = conv.double()
    assert_rows_reproduce(conv, torch.randn(3, conv.in_channels, *size, dtype=torch.float64))


def test_sampled_positions_are_distinct_and_seeded() -> None:
    shape = (3, 8, 10, 10)
    first = Positions.sample(shape, 50, seed=3).index
    assert first.tolist() == Positions.sample(shape, 50, seed=3).index.tolist()
    assert len({tuple(row) for row in first.tolist()}) == 50
    conv = nn.Conv2d(4, 8, 3, padding=1, bias=False, dtype=torch.float64)
    assert_rows_reproduce(conv, torch.randn(3, 4, 10, 10, dtype=torch.float64), limit=50)


def test_a_linear_layer_is_a_convolution_without_space() -> None:
    x, weight = torch.randn(5, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    positions = Positions.sample((5, 3), 100, seed=0)
    made = input_rows(x, Geometry(), positions) @ weight_matrix(weight, Geometry())
    torch.testing.assert_close(made[0], F.linear(x, weight))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_weight_matrix_has_an_inverse(transposed: bool, groups: int) -> None:
    weight = torch.randn(4, 6, 3, 2)
    geometry = Geometry((3, 2), (1, 1), (0, 0), (1, 1), transposed, groups)
    torch.testing.assert_close(weight_from_matrix(weight_matrix(weight, geometry), geometry, weight.shape), weight)
