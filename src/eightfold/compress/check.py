"""The check after surgery: a pruned model must run. Groups that stop it (a size written into the code) stay whole."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.plan import GroupPlan, PrunePlan
from eightfold.compress.surgery import applied
from eightfold.compress.trace import call_model, preserved

# What torch and model code raise when a size does not fit.
FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError)


def checked(model: nn.Module, example_inputs: Any, plan: PrunePlan) -> PrunePlan:
    """`plan` without the groups at whose new width the model does not run, which are named in a warning."""
    expected = _shapes(model, example_inputs)
    if not plan.groups or _runs(model, example_inputs, plan, expected):
        return plan
    faulty = _faulty(model, example_inputs, plan, expected)
    names = ", ".join(group.id for group in faulty)
    warnings.warn(f"left whole, because the model's code fixes their size: {names}", stacklevel=2)
    return without(plan, {group.id for group in faulty})


def without(plan: PrunePlan, ids: set[str]) -> PrunePlan:
    """The plan with some groups left whole."""
    groups = tuple(group for group in plan.groups if group.id not in ids)
    return plan.model_copy(update={"groups": groups})


def _faulty(
    model: nn.Module, inputs: Any, plan: PrunePlan, expected: Sequence[tuple[int, ...]]
) -> tuple[GroupPlan, ...]:
    """Groups that fail, found by halving: those that fail alone, or together with the groups already accepted."""
    accepted: list[GroupPlan] = []
    faulty: list[GroupPlan] = []

    def visit(groups: Sequence[GroupPlan]) -> None:
        trial = plan.model_copy(update={"groups": (*accepted, *groups)})
        if _runs(model, inputs, trial, expected):
            accepted.extend(groups)
        elif len(groups) == 1:
            faulty.extend(groups)
        else:
            middle = len(groups) // 2
            visit(groups[:middle])
            visit(groups[middle:])

    visit(plan.groups)
    return tuple(faulty)


def _runs(model: nn.Module, inputs: Any, plan: PrunePlan, expected: Sequence[tuple[int, ...]]) -> bool:
    try:
        with applied(model, plan):
            return _shapes(model, inputs) == expected
    except FAILURES:
        return False


def _shapes(model: nn.Module, inputs: Any) -> list[tuple[int, ...]]:
    with preserved(model), torch.no_grad():
        model.eval()
        leaves = tree_leaves(call_model(model, inputs))
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
