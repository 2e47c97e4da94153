"""The oracle of every rule is the operator itself, run by torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from eightfold.export.torch.decompositions.decomposing import decomposed

SIZES = ((2, 3), (7, 7), (5, None), (20, 17), (13, 4), 6)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def same(operator: Callable[..., torch.Tensor], *args: Any, **options: Any) -> None:
    """A rule applies, and gives what torch gives."""
    with decomposed() as words:
        found = operator(*args, **options)
    assert len(words.operators) == 1
    torch.testing.assert_close(found, operator(*args, **options), rtol=0, atol=2e-5)


def left_alone(operator: Callable[..., Any], *args: Any, **options: Any) -> None:
    with decomposed() as words:
        operator(*args, **options)
    assert not words.operators


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pools_to_sizes_that_do_not_divide(kind: str, size: Any, dtype: torch.dtype) -> None:
    same(getattr(F, f"adaptive_{kind}_pool2d"), rand(2, 3, 13, 11).to(dtype), size)


@pytest.mark.parametrize("kind", ["avg", "max"])
def test_pools_of_one_and_three_axes_with_and_without_a_batch(kind: str) -> None:
    one, two, three = (getattr(F, f"adaptive_{kind}_pool{axes}d") for axes in (1, 2, 3))
    same(one, rand(2, 3, 13), 5)
    same(one, rand(3, 13), 14)
    same(two, rand(3, 13, 11), (2, 4))
    same(three, rand(2, 3, 7, 13, 11), (2, 5, 3))
    same(three, rand(3, 7, 13, 11), (7, 5, 3))


def test_a_maximum_that_is_no_number_stays_none() -> None:
    x = rand(1, 1, 5, 5)
    x[0, 0, 2, 2] = torch.nan
    with decomposed():
        found = F.adaptive_max_pool2d(x, 3)
    assert torch.equal(found.isnan(), F.adaptive_max_pool2d(x, 3).isnan())


@pytest.mark.parametrize("kernel", [2, 3, (5, 4)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_means_with_a_divisor_of_their_own(kernel: Any, ceil_mode: bool) -> None:
    for stride, padding in itertools.product((None, 1, (2, 3), 4), (0, 1)):
        same(F.avg_pool2d, rand(2, 3, 13, 11), kernel, stride, padding, ceil_mode, divisor_override=7)


def test_means_over_three_axes_with_a_divisor_of_their_own() -> None:
    same(F.avg_pool3d, rand(1, 2, 7, 13, 11), 3, 2, (1, 0, 1), True, divisor_override=2)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("height", [1, 5, 13, 30])
@pytest.mark.parametrize("width", [4, 11, 23])
def test_antialiased_sizes(mode: str, height: int, width: int) -> None:
    same(F.interpolate, rand(2, 3, 13, 11), size=(height, width), mode=mode, antialias=True)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [0.3, 0.77, 1.0, 1.7, (0.5, 3.1)])
@pytest.mark.parametrize("anew", [None, True])
def test_antialiased_factors(mode: str, factor: Any, anew: bool | None) -> None:
    options = {"scale_factor": factor, "recompute_scale_factor": anew, "mode": mode}
    same(F.interpolate, rand(2, 3, 13, 11), antialias=True, **options)


@pytest.mark.parametrize("size", [{"size": (7, 5)}, {"size": (26, 20)}, {"scale_factor": 0.77}], ids=str)
def test_areas(size: dict[str, Any]) -> None:
    same(F.interpolate, rand(2, 3, 13, 11), mode="area", **size)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("offset_groups", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stride", [(1, 2), (2, 1)])
def test_deformable_convolutions(groups: int, offset_groups: int, masked: bool, stride: tuple[int, int]) -> None:
    """Offsets of several pixels, so that many samples lie outside the image."""
    x, weight = rand(2, 3, 13, 11), rand(6, 3 // groups, 3, 2)
    sides = F.conv2d(x, rand(1, 3, 3, 2), None, stride, (1, 2), (2, 1)).shape[2:]
    offset, mask = 3 * rand(2, 12 * offset_groups, *sides), rand(2, 6 * offset_groups, *sides)
    same(deform_conv2d, x, offset, weight, rand(6), stride, (1, 2), (2, 1), mask if masked else None)


def test_attention_over_three_and_five_axes() -> None:
    for shape in ((2, 13, 8), (2, 3, 4, 13, 8)):
        x = rand(*shape)
        same(F.scaled_dot_product_attention, x, 2 * x, 3 * x)
        same(F.scaled_dot_product_attention, x, x, x, rand(13, 13), scale=0.3)


def test_what_the_exporters_know_stays_as_it_is() -> None:
    x = rand(2, 4, 12, 10)
    for pool in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        for size in (1, (6, 5), (None, 2), (12, 10)):
            left_alone(pool, x, size)
    left_alone(F.avg_pool2d, x, 3, 2, 1, True)
    left_alone(F.interpolate, x, size=(7, 5), mode="bilinear")
    left_alone(F.interpolate, x, size=(6, 5), mode="area")
    left_alone(F.scaled_dot_product_attention, x, x, x)
    left_alone(F.scaled_dot_product_attention, x[0], x[0], x[0], is_causal=True)
    left_alone(F.adaptive_max_pool2d, x, 5, return_indices=True)


@pytest.mark.parametrize(
    ("operator", "args", "options"),
    [
        (F.adaptive_avg_pool2d, ((2, 3, 4),), {}),
        (F.interpolate, (), {"mode": "area"}),
        (F.interpolate, (), {"mode": "bicubic", "antialias": True}),
        (F.interpolate, ((0, 3),), {"mode": "bicubic", "antialias": True}),
        (F.avg_pool2d, (3,), {"divisor_override": 0}),
    ],
)
def test_mistakes_are_what_torch_says_of_them(operator: Any, args: Any, options: Any) -> None:
    with pytest.raises((RuntimeError, ValueError)) as known:
        operator(rand(1, 2, 7, 5), *args, **options)
    with decomposed(), pytest.raises(known.type) as found:
        operator(rand(1, 2, 7, 5), *args, **options)
    assert str(found.value) == str(known.value)
