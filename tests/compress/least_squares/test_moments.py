"""Streamed least squares against numpy's lstsq on all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eightfold.compress.least_squares.dual_ridge import ROWS_AT_MOST, DualRidge
from eightfold.compress.least_squares.moments import HalvedMoments, Moments, cholesky_ridge
from eightfold.errors import ModelError


def streamed(x: torch.Tensor, y: torch.Tensor) -> Moments:
    moments = Moments()
    for start in range(0, x.shape[1], 37):
        moments.add(x[:, start : start + 37], y[:, start : start + 37])
    return moments


@pytest.mark.parametrize("intercept", [True, False])
def test_streamed_fit_equals_lstsq_on_all_rows(intercept: bool) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(1.0, 2.0, (3, 200, 7)), random.normal(3.0, 1.0, (3, 200, 4))
    regression = streamed(torch.from_numpy(x), torch.from_numpy(y)).regression(intercept=intercept)
    fit = regression.fit(torch.zeros(3, 7, 4), ridge=0.0)
    for group in range(3):
        design = np.hstack([x[group], np.full((200, 1), float(intercept))])
        expected, *_ = np.linalg.lstsq(design, y[group], rcond=None)
        np.testing.assert_allclose(fit.weight[group], expected[:-1], rtol=1e-8)
        np.testing.assert_allclose(fit.intercept[group], expected[-1], rtol=1e-8)


def test_ridge_pulls_towards_the_prior() -> None:
    x, y, prior = torch.randn(1, 50, 3), torch.randn(1, 50, 2), torch.randn(1, 3, 2).double()
    moments = streamed(x, y)
    torch.testing.assert_close(moments.regression().fit(prior, ridge=1e9).weight, prior, atol=1e-6, rtol=0)


def test_ridge_equals_rows_that_vote_for_the_prior() -> None:
    random = np.random.default_rng(1)
    x, y, prior = random.normal(size=(60, 5)), random.normal(size=(60, 2)), random.normal(size=(5, 2))
    ridge = 0.3
    strength = np.sqrt(ridge * (x**2).sum() / 5)
    expected, *_ = np.linalg.lstsq(np.vstack([x, strength * np.eye(5)]), np.vstack([y, strength * prior]), rcond=None)
    moments = streamed(torch.from_numpy(x)[None], torch.from_numpy(y)[None])
    fit = moments.regression(intercept=False).fit(torch.from_numpy(prior)[None], ridge=ridge)
    np.testing.assert_allclose(fit.weight[0], expected, rtol=1e-8)


def test_fewer_rows_than_inputs_and_dead_inputs_stay_finite() -> None:
    x, y = torch.randn(1, 4, 10), torch.randn(1, 4, 2)
    x[..., 3:5] = 0
    prior = torch.randn(1, 10, 2)
    fit = streamed(x, y).regression().fit(prior, ridge=0.0)
    assert torch.isfinite(fit.weight).all()
    torch.testing.assert_close(fit.weight[:, 3:5], prior[:, 3:5].double())


def test_squared_error_is_that_of_the_rows_even_of_rows_not_fitted() -> None:
    x, y = torch.randn(2, 80, 4).double(), torch.randn(2, 80, 3).double() + 2
    fit = streamed(x[:, :40], y[:, :40]).regression().fit(torch.zeros(2, 4, 3), ridge=0.1)
    error = (x @ fit.weight + fit.intercept.unsqueeze(1) - y).square().mean(1)
    torch.testing.assert_close(streamed(x, y).regression().squared_error(fit), error)
    torch.testing.assert_close(streamed(x, y).regression().yy, y.var(1, correction=0))


def test_halves_add_up() -> None:
    x, y, prior = torch.randn(1, 90, 4), torch.randn(1, 90, 3), torch.zeros(1, 4, 3)
    halves = streamed(x[:, :30], y[:, :30]) + streamed(x[:, 30:], y[:, 30:])
    seen, expected = (moments.regression().fit(prior, ridge=0.1) for moments in (halves, streamed(x, y)))
    torch.testing.assert_close(seen.weight, expected.weight)
    assert (halves + Moments()).rows == (Moments() + halves).rows == 90


def test_validation_trusts_the_prior_when_rows_are_few_and_noisy_and_the_data_when_they_are_many() -> None:
    torch.manual_seed(0)
    truth, prior = torch.randn(1, 20, 5).double(), torch.randn(1, 20, 5).double()

    def distance(rows: int, around: torch.Tensor, noise: float) -> float:
        x = torch.randn(1, rows, 20).double()
        y = x @ around + noise * torch.randn(1, rows, 5)
        moments = HalvedMoments()
        moments.add(x, y)
        return float((moments.fit(prior, intercept=True).weight - around).norm() / around.norm())

    assert distance(4000, truth, 0.1) < 0.02
    assert distance(24, prior, 3.0) < 0.3


def test_not_finite_moments_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN"):
        cholesky_ridge(torch.full((1, 2, 2), float("nan")), 1e-3)


@pytest.mark.parametrize("intercept", [True, False])
def test_few_rows_give_the_same_fit_as_moments(intercept: bool) -> None:
    x, y, prior = torch.randn(2, 40, 60) + 1, torch.randn(2, 40, 3), torch.randn(2, 60, 3)
    few = DualRidge()
    for start in (0, 25):
        few.add(x[:, start : start + (25 if not start else 15)], y[:, start : start + (25 if not start else 15)])
    seen = few.fit(prior, intercept=intercept, ridge=0.1)
    expected = streamed(x, y).regression(intercept=intercept).fit(prior, ridge=0.1)
    torch.testing.assert_close(seen.weight, expected.weight)
    torch.testing.assert_close(seen.intercept, expected.intercept)
    assert torch.isfinite(few.fit(prior, intercept=intercept).weight).all()


def test_few_rows_stay_few() -> None:
    few = DualRidge()
    for _ in range(3):
        few.add(torch.randn(1, ROWS_AT_MOST // 2, 3), torch.randn(1, ROWS_AT_MOST // 2, 2))
    assert few.rows == ROWS_AT_MOST
