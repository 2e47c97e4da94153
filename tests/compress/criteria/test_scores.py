"""Each criterion against its formula, written out plainly in numpy for one layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.reconstruction import eliminate
from eightfold.compress.criteria.scores import CRITERIA, combined, layer_scores, register_score
from eightfold.compress.trace.trace import trace
from eightfold.errors import UnknownNameError, UsageError

GROUP = "0.weight"


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 36, 4)).double()
    for name, tensor in model.state_dict().items():
        if name in ("1.weight", "1.bias", "1.running_mean"):
            tensor.normal_()
    return model.eval()


@pytest.fixture
def evidence(model: nn.Module) -> Evidence:
    images = [(torch.randn(4, 3, 8, 8, dtype=torch.float64),) for _ in range(3)]
    targets = [torch.tensor([0, 1, 2, 3]) for _ in range(3)]
    return Evidence(model, trace(model, images[0]), images, targets, F.cross_entropy)


def filters(model: nn.Module) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return model.state_dict()["0.weight"].reshape(16, -1).numpy()  # type: ignore[no-any-return]


def score(evidence: Evidence, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return layer_scores(evidence, name)[GROUP]


def test_l1_and_l2_are_means_over_the_filter(evidence: Evidence, model: nn.Module) -> None:
    np.testing.assert_allclose(score(evidence, "l1")[0], np.abs(filters(model)).mean(1))
    np.testing.assert_allclose(score(evidence, "l2")[0], np.sqrt((filters(model) ** 2).mean(1)))


def test_bn_scale_is_gamma_and_l1_where_there_is_no_norm(evidence: Evidence, model: nn.Module) -> None:
    np.testing.assert_allclose(score(evidence, "bn_scale")[0], model.state_dict()["1.weight"].abs())
    scores = layer_scores(evidence, "bn_scale")
    np.testing.assert_allclose(scores["3.weight"], layer_scores(evidence, "l1")["3.weight"])


def test_lamp_divides_by_the_sum_of_those_not_smaller(evidence: Evidence, model: nn.Module) -> None:
    squares = (filters(model) ** 2).mean(1)
    expected = [s / squares[squares >= s].sum() for s in squares]
    np.testing.assert_allclose(score(evidence, "lamp")[0], expected)
    assert score(evidence, "lamp").max() == 1


def test_fpgm_sums_distances(evidence: Evidence, model: nn.Module) -> None:
    w = filters(model)
    expected = np.linalg.norm(w[:, None] - w[None], axis=2).sum(1)
    np.testing.assert_allclose(score(evidence, "fpgm")[0], expected, rtol=1e-6)


def test_group_l2_counts_every_coupled_tensor_alike(evidence: Evidence, model: nn.Module) -> None:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    parts = [
        (state["0.weight"] ** 2).mean((1, 2, 3)),
        (state["3.weight"] ** 2).mean((0, 2, 3)),
        state["1.weight"] ** 2,
    ]
    norm = np.sqrt(sum(part / part.mean() for part in parts) / 3)
    np.testing.assert_allclose(score(evidence, "group_l2")[0], norm / norm.mean())


def test_taylor_is_the_change_of_the_loss_for_a_small_step(evidence: Evidence, model: nn.Module) -> None:
    weight, step, expected = model.state_dict()["0.weight"], 1e-6, np.zeros(16)
    for (x,), target in zip(evidence.batches, evidence.targets, strict=True):
        with torch.no_grad():
            before = F.cross_entropy(model(x), target)
            for channel in range(16):
                kept = weight[channel].clone()
                weight[channel] *= 1 - step
                expected[channel] += abs(float(F.cross_entropy(model(x), target) - before)) / step / 3
                weight[channel] = kept
    np.testing.assert_allclose(score(evidence, "taylor")[0], expected, rtol=1e-3, atol=1e-7)


def test_hessian_diag_is_half_weight_squared_times_mean_squared_gradient(evidence: Evidence, model: nn.Module) -> None:
    expected = np.zeros(16)
    for (x,), target in zip(evidence.batches, evidence.targets, strict=True):
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), target), [model.get_parameter("0.weight")])
        expected += 0.5 * ((filters(model) * gradient.reshape(16, -1).numpy()) ** 2).sum(1) / 3
    np.testing.assert_allclose(score(evidence, "hessian_diag")[0], expected)


def test_gradient_scores_leave_flags_and_gradients_alone(evidence: Evidence, model: nn.Module) -> None:
    model.requires_grad_(False)
    model.get_parameter("0.weight").grad = torch.ones(16, 3, 3, 3, dtype=torch.float64)
    score(evidence, "taylor")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    gradient = model.get_parameter("0.weight").grad
    assert gradient is not None
    assert bool((gradient == 1).all())
    assert model.get_parameter("3.weight").grad is None


def test_activation_mean_is_what_the_reader_sees(evidence: Evidence, model: nn.Module) -> None:
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        seen = torch.cat([model[:3](x) for (x,) in evidence.batches])
    np.testing.assert_allclose(score(evidence, "activation_mean")[0], seen.abs().mean((0, 2, 3)))


def test_random_is_seeded(evidence: Evidence) -> None:
    np.testing.assert_array_equal(score(evidence, "random"), score(evidence, "random"))


def test_lsq_gives_nothing_to_a_channel_that_others_can_replace(evidence: Evidence, model: nn.Module) -> None:
    for tensor in (model.state_dict()[name] for name in ("0.weight", "1.weight", "1.bias", "1.running_mean")):
        tensor[5] = tensor[9]
    scores = score(evidence, "lsq")[0]
    assert min(scores[5], scores[9]) < 1e-2 * np.median(scores)
    assert max(scores[5], scores[9]) > 1e-2 * np.median(scores)


def test_eliminate_tells_the_loss_of_the_best_refit() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 12)) @ random.normal(size=(12, 12))
    x -= x.mean(0)
    w = random.normal(size=(12, 3))
    blocks = np.repeat(np.arange(6), 2)
    blocks[:2] = -1
    losses = eliminate(torch.from_numpy(x.T @ x / 500), torch.from_numpy(w), blocks, ridge=1e-9)
    order = sorted(losses, key=lambda block: losses[block])
    y = x @ w
    for gone in range(1, 6):
        left = ~np.isin(blocks, order[:gone])
        residual = y - x[:, left] @ np.linalg.lstsq(x[:, left], y, rcond=None)[0]
        assert losses[order[gone - 1]] == pytest.approx(float((residual.var(0) / y.var(0)).mean()), rel=1e-5)


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_free_group(name: str, evidence: Evidence) -> None:
    scores = combined(layer_scores(evidence, name))
    assert {key: len(values) for key, values in scores.items()} == {g.id: g.width for g in evidence.graph.free}


def test_a_users_function_is_a_score(evidence: Evidence) -> None:
    scores = layer_scores(evidence, lambda seen: {g.id: np.arange(float(g.width)) for g in seen.graph.free})
    assert scores[GROUP].tolist() == [list(range(16))]


def test_wrong_scores_are_told_plainly(evidence: Evidence, model: nn.Module) -> None:
    bare = Evidence(model, evidence.graph)
    with pytest.raises(UnknownNameError, match="unknown score 'l3'"):
        layer_scores(evidence, "l3")
    with pytest.raises(UsageError, match="'lsq' got no images"):
        layer_scores(bare, "lsq")
    with pytest.raises(UsageError, match="'taylor' got no loss"):
        layer_scores(Evidence(model, evidence.graph, evidence.batches), "taylor")
    with pytest.raises(UsageError, match="nothing for group"):
        layer_scores(evidence, lambda seen: {})
    with pytest.raises(UsageError, match="NaN"):
        layer_scores(evidence, lambda seen: {g.id: np.full(g.width, np.nan) for g in seen.graph.free})
    with pytest.raises(UsageError, match="the score 'l2' exists"):
        register_score("l2", CRITERIA["l1"])
