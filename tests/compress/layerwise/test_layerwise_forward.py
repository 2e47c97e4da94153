from __future__ import annotations

import threading
from operator import attrgetter

import pytest
import torch
from torch import Tensor, nn

from eightfold.compress.layerwise.layerwise_forward import PausedCall, layer_calls
from eightfold.compress.least_squares.patches import Geometry, Positions, input_rows, output_rows, weight_matrix


class Tangle(nn.Module):
    """Layers that share weights, branch in Python and mix dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.head = nn.Linear(4, 5)
        self.tokens = nn.Linear(5, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for _ in range(2 if x.shape[-1] > 4 else 1):
            x = x + self.twice(x)
        x = self.up(x)
        tokens: Tensor = self.tokens(self.head(x.flatten(2).mT))
        return tokens


ORDER = ["stem.weight", "twice.weight", "twice.weight", "up.weight", "head.weight", "tokens.weight"]


def test_pauses_before_every_layer_in_execution_order() -> None:
    model = Tangle()
    assert [call.weight for call in layer_calls(model, (torch.rand(2, 3, 8, 8),))] == ORDER
    assert [call.weight for call in layer_calls(model, (torch.rand(2, 3, 4, 4),))] == ORDER[:1] + ORDER[2:]


def test_a_weight_changed_at_its_pause_takes_effect() -> None:
    model, x = Tangle(), torch.rand(1, 3, 8, 8)
    seen: list[Tensor] = []
    for call in layer_calls(model, (x,), observe=lambda _, output: seen.append(output)):
        if call.weight == "up.weight":
            model.up.weight.data.zero_()
    assert not seen[3].any()


def test_what_is_observed_is_the_input_rows_times_the_weight() -> None:
    model = Tangle().double()
    parameters = dict(model.named_parameters())

    def check(call: PausedCall, output: Tensor) -> None:
        positions = Positions.sample(output.shape, 20, seed=0)
        rows = input_rows(call.input, call.geometry, positions)
        made = rows @ weight_matrix(parameters[call.weight], call.geometry)
        torch.testing.assert_close(made, output_rows(output, positions, call.geometry.groups))

    for _ in layer_calls(model, (torch.rand(2, 3, 8, 8, dtype=torch.float64),), observe=check):
        pass


def test_passes_advance_side_by_side() -> None:
    model = Tangle()
    pairs = zip(*(layer_calls(model, (torch.rand(n, 3, 8, 8),)) for n in (1, 2)), strict=True)
    assert all(first.weight == second.weight for first, second in pairs)


def test_closing_abandons_the_pass_and_its_thread() -> None:
    before = threading.active_count()
    passing = layer_calls(Tangle(), (torch.rand(1, 3, 8, 8),))
    next(passing)
    assert threading.active_count() == before + 1
    passing.close()  # type: ignore[attr-defined]  # a generator, declared as the iterator that callers need
    assert threading.active_count() == before


def test_an_error_of_the_model_is_raised_to_the_caller() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="channels"):
        list(layer_calls(Tangle(), (torch.rand(1, 4, 8, 8),)))
    assert threading.active_count() == before


def test_live_bytes_counts_what_the_pass_holds() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))
    model.requires_grad_(False)
    calls = layer_calls(model, (torch.rand(1, 4, 16, 16),), measure=True)
    one_map = 4 * 16 * 16 * 4
    # map() keeps no call while it waits for the next one; a loop variable would hold the previous input alive.
    assert list(map(attrgetter("live_bytes"), calls)) == [0, one_map, one_map]


def test_linear_geometry_has_no_space() -> None:
    (call,) = list(layer_calls(nn.Linear(3, 4), (torch.rand(2, 3),)))
    assert call.geometry == Geometry()
