"""The check after surgery: a pruned model must run. Groups that stop it (a size written into the code) stay whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.groups import ChannelGraph
from eightfold.compress.plan import GroupPlan, PrunePlan
from eightfold.compress.skim import Skim
from eightfold.compress.surgery import applied
from eightfold.compress.trace import call_model, module_paths, preserved

# What torch and model code raise when a size does not fit.
FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError)
ATTEMPTS = 12

Shapes = list[tuple[int, ...]]


def checked(model: nn.Module, example_inputs: Any, plan: PrunePlan, graph: ChannelGraph) -> PrunePlan:
    """`plan` without the groups at whose new width the model does not run, which are named in a warning."""
    original = plan
    for _ in range(ATTEMPTS):
        seen, place = _try_plan(model, example_inputs, plan)
        if _fits(seen, graph):
            break
        at_fault = next(filter(None, _guesses(model, graph, plan, place)), set())
        plan = plan.without(at_fault or _by_halving(model, example_inputs, plan, graph))
    else:
        plan = plan.without(_by_halving(model, example_inputs, plan, graph))
    _tell(original, plan)
    return plan


def _fits(seen: Shapes | None, graph: ChannelGraph) -> bool:
    """Whether the outputs have the original shapes, or as many dimensions where shapes depend on values."""
    if seen is None or not graph.data_dependent:
        return seen == list(graph.outputs)
    return [len(shape) for shape in seen] == [len(shape) for shape in graph.outputs]


def _tell(before: PrunePlan, after: PrunePlan) -> None:
    whole = [group.id for group in before.groups if group.id not in after.kept]
    if whole:
        names = ", ".join(whole[:6]) + (f" and {len(whole) - 6} more" if len(whole) > 6 else "")
        warnings.warn(f"left whole, because the model's code fixes their size: {names}", stacklevel=3)


def _guesses(model: nn.Module, graph: ChannelGraph, plan: PrunePlan, place: str) -> Iterator[set[str]]:
    """Which groups may be at fault when the module `place` raised, the likeliest first."""
    planned = set(plan.kept)
    touched = {group.id for group in plan.groups if any(m.tensor.startswith(f"{place}.") for m in group.members)}
    suspected = [_suspected(model, graph, path) & planned for path in _upwards(place)]
    yield suspected[0]
    yield from (groups & touched for groups in suspected[1:])
    yield touched if place else set()
    yield from suspected[1:]


def _suspected(model: nn.Module, graph: ChannelGraph, path: str) -> set[str]:
    """Groups that the code of the module at `path` cuts; modules of one class run the same code and go together."""
    code = type(model.get_submodule(path)).__qualname__
    return {suspect.group for suspect in graph.suspects if suspect.code == code}


def _upwards(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _by_halving(model: nn.Module, inputs: Any, plan: PrunePlan, graph: ChannelGraph) -> set[str]:
    """Groups that fail, found by halving: those that fail together with the groups already accepted."""
    accepted: list[GroupPlan] = []
    faulty: set[str] = set()

    def visit(groups: Sequence[GroupPlan]) -> None:
        trial = plan.model_copy(update={"groups": (*accepted, *groups)})
        if _fits(_try_plan(model, inputs, trial)[0], graph):
            accepted.extend(groups)
        elif len(groups) < 2:
            faulty.update(group.id for group in groups)
        else:
            middle = len(groups) // 2
            visit(groups[:middle])
            visit(groups[middle:])

    visit(plan.groups)
    return faulty


def _try_plan(model: nn.Module, inputs: Any, plan: PrunePlan) -> tuple[Shapes | None, str]:
    with applied(model, plan, shapes_only=True):
        return _try(model, inputs)


def _try(model: nn.Module, inputs: Any) -> tuple[Shapes | None, str]:
    """The shapes of the model's outputs; or None, and the path of the module that raised."""
    with module_paths(model, keep_on_error=True) as path, preserved(model), torch.no_grad():
        model.eval()
        try:
            with Skim():
                leaves = tree_leaves(call_model(model, inputs))
        except FAILURES:
            return None, path[-1]
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)], ""
