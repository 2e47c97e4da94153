"""Heads that one call does not reach: named, or traced by a second call. Oracle: the original with zeroed channels."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from benchmarks.masked_reference import masked_error, outputs
from torch import Tensor, nn

from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan_pruning import UnreachedWarning, plan_module
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.trace import trace
from eightfold.errors import ModelError

IMAGE = torch.linspace(-1, 1, 3 * 64).reshape(1, 3, 8, 8)


class WithHead(nn.Module):
    """An auxiliary head that runs when it is asked for only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.head, self.aux = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        seen = self.stem(x).relu()
        out: Tensor = self.head(self.body(seen).relu())
        return (out, self.aux(seen)) if aux else out


def test_parameters_that_the_trace_never_met_are_named() -> None:
    model = WithHead()
    with pytest.warns(UnreachedWarning, match=r"never used.*aux\.weight, aux\.bias.*list of calls"):
        plan = plan_module(model, (IMAGE,))
    assert plan.unreached == ("aux.weight", "aux.bias")
    assert PrunePlan.from_json(plan.to_json()) == plan
    assert "not reached by the trace: aux.weight" in plan.describe()


def test_programs_of_torch_export_are_planned_as_modules() -> None:
    """Their modules refuse train(), which reaches heads that only training runs."""
    program = torch.export.export(WithHead().eval(), (IMAGE,))
    with pytest.warns(UnreachedWarning, match=r"never used.*aux\.weight"):
        plan = plan_module(program.module(), (IMAGE,))
    assert plan.groups
    for wrong in (program, None):
        with pytest.raises(ModelError, match=f"the model is a {type(wrong).__name__}; allowed: a torch.nn.Module"):
            plan_module(wrong, (IMAGE,))  # type: ignore[arg-type]  # what users do


@pytest.mark.parametrize(
    "calls",
    [
        [(IMAGE,), (IMAGE, True)],
        [{"x": IMAGE}, {"x": IMAGE, "aux": True}],
        [{"x": IMAGE, "aux": True}],
    ],
)
def test_a_second_call_reaches_them(calls: list[Any]) -> None:
    model = WithHead()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = plan_module(model, calls, keep_ratio=0.5)
    assert plan.unreached == ()
    assert "unreached" not in plan.to_json()
    assert masked_error(model, (IMAGE, True), plan) < 1e-5
    apply_plan_to_module(model, plan)
    assert model.stem.out_channels == model.aux.in_channels == 16
    assert [tuple(out.shape) for out in outputs(model, (IMAGE, True))] == [(1, 4, 8, 8), (1, 5, 8, 8)]


def test_the_calls_couple_what_either_couples() -> None:
    class Two(nn.Module):
        """One call adds a to b, the other b to c."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 16, 1) for _ in range(3))
            self.out = nn.Conv2d(16, 2, 1)

        def forward(self, x: Tensor, first: bool) -> Tensor:
            out: Tensor = self.out(self.b(x) + (self.a(x) if first else self.c(x)))
            return out

    graph = trace(Two(), [(IMAGE, True), (IMAGE, False)])
    members = [{member.tensor for member in group.members} for group in graph.free]
    assert any({"a.weight", "b.weight", "c.weight"} <= names for names in members)


def test_a_list_of_images_stays_one_argument() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)

        def forward(self, images: list[Tensor]) -> Tensor:
            out: Tensor = self.head(self.stem(torch.stack(images)))
            return out

    assert plan_module(Listed(), ([IMAGE[0], IMAGE[0]],)).groups
    assert plan_module(Listed(), [IMAGE[0], IMAGE[0]]).groups
