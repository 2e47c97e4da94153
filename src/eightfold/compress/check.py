"""The check after surgery: a pruned model must run, and every operator give the shape that its channels ask for.

Groups that stop it (a size written into the code) stay whole.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from eightfold.compress.modules.modules import call_model, module_code_name, module_paths, plain_attention, preserved
from eightfold.compress.plan.plan import GroupPlan, PrunePlan
from eightfold.compress.surgery.surgery import applied
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.replay import Misfit, Replay
from eightfold.compress.types import ExampleInputs
from eightfold.export.verify.module_runs import set_evaluation

# What torch and model code raise when a size does not fit.
FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, KeyError, AttributeError)
ATTEMPTS = 12

Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class TestRun:
    """Result of running a pruned model."""

    shapes: Shapes | None = None  # of its outputs; None when it failed
    place: str = ""  # the module that failed
    misfits: frozenset[str] = frozenset()  # groups whose channels an operator there miscounted


def checked(model: nn.Module, example_inputs: ExampleInputs, plan: PrunePlan, graph: ChannelGraph) -> PrunePlan:
    """`plan` without the groups at whose new width the model does not run as traced, which are named in a warning."""
    original = plan
    blamed: set[str] = set()  # classes of modules whose code was at fault before
    for _ in range(ATTEMPTS):
        trial = _try_plan(model, example_inputs, plan, graph)
        if _fits(trial.shapes, graph):
            break
        at_fault = _miscounted(model, graph, plan, trial, blamed)
        at_fault = at_fault or _one_of_several(model, example_inputs, graph, plan, trial)
        at_fault = at_fault or next(filter(None, _guesses(model, graph, plan, trial.place)), set())
        plan = plan.without(at_fault or _by_halving(model, example_inputs, plan, graph))
    else:
        plan = plan.without(_by_halving(model, example_inputs, plan, graph))
    _tell(original, plan)
    return plan


def _miscounted(model: nn.Module, graph: ChannelGraph, plan: PrunePlan, trial: TestRun, blamed: set[str]) -> set[str]:
    """The groups that an operator miscounted; with all that their module's class cuts, once it was at fault before."""
    at_fault = set(plan.kept) & trial.misfits
    if not at_fault:
        return set()
    code = module_code_name(model.get_submodule(trial.place))
    alike = _suspected(model, graph, trial.place) & set(plan.kept) if code in blamed else set()
    blamed.add(code)
    return at_fault | alike


def _fits(seen: Shapes | None, graph: ChannelGraph) -> bool:
    """True if the outputs have the original shapes, or the same rank if shapes depend on values."""
    if seen is None or not graph.data_dependent:
        return seen == list(graph.outputs)
    return [len(shape) for shape in seen] == [len(shape) for shape in graph.outputs]


def _tell(before: PrunePlan, after: PrunePlan) -> None:
    left = {group.id for group in after.groups}
    whole = [group.id for group in before.groups if group.id not in left]
    if whole:
        names = ", ".join(whole[:6]) + (f" and {len(whole) - 6} more" if len(whole) > 6 else "")
        warnings.warn(f"left whole, because the model's code fixes their size: {names}", stacklevel=3)


def _one_of_several(model: nn.Module, inputs: Any, graph: ChannelGraph, plan: PrunePlan, trial: TestRun) -> set[str]:
    """Finds the group that must stay whole for a failing module to run, if its code cuts several.

    Its likes in other modules of that class go with it: they run the same code.
    """
    here = {suspect.group for suspect in graph.suspects if suspect.module == trial.place} & set(plan.kept)
    if len(here) < 2:
        return set()
    code = module_code_name(model.get_submodule(trial.place))
    for group in sorted(here):
        name = _below(group, trial.place)
        alike = {s.group for s in graph.suspects if s.code == code and _below(s.group, s.module) == name}
        again = _try_plan(model, inputs, plan.without(alike & set(plan.kept)), graph)
        if again.shapes is not None or again.place != trial.place:
            return alike & set(plan.kept)
    return set()


def _below(group: str, module: str) -> str:
    """A group's id without the path of a module above it."""
    return group.removeprefix(f"{module}.")


def _guesses(model: nn.Module, graph: ChannelGraph, plan: PrunePlan, place: str) -> Iterator[set[str]]:
    """Sets of groups that may be at fault when the module `place` raised, the likeliest first."""
    planned = set(plan.kept)
    touched = {group.id for group in plan.groups if any(m.tensor.startswith(f"{place}.") for m in group.members)}
    suspected = [_suspected(model, graph, path) & planned for path in _upwards(place)]
    yield suspected[0]
    yield from (groups & touched for groups in suspected[1:])
    yield touched if place else set()
    yield from suspected[1:]


def _suspected(model: nn.Module, graph: ChannelGraph, path: str) -> set[str]:
    """Groups that the code of the module at `path` cuts; modules of one class run the same code and go together."""
    code = module_code_name(model.get_submodule(path))
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
        if _fits(_try_plan(model, inputs, trial, graph).shapes, graph):
            accepted.extend(groups)
        elif len(groups) < 2:
            faulty.update(group.id for group in groups)
        else:
            middle = len(groups) // 2
            visit(groups[:middle])
            visit(groups[middle:])

    visit(plan.groups)
    return faulty


def _try_plan(model: nn.Module, inputs: Any, plan: PrunePlan, graph: ChannelGraph) -> TestRun:
    kept = plan.kept
    stays = [np.isin(np.arange(group.width), kept.get(group.id, np.arange(group.width))) for group in graph.groups]
    follow = Replay(graph.trail, graph.trail.widths(stays))
    with applied(model, plan, shapes_only=True):
        return _try(model, inputs, follow, graph)


def _try(model: nn.Module, inputs: Any, follow: Replay, graph: ChannelGraph) -> TestRun:
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(module_paths(model, keep_on_error=True))
        for context in (preserved(model), torch.no_grad(), plain_attention()):
            stack.enter_context(context)
        set_evaluation(model)
        try:
            with follow:
                leaves = tree_leaves(call_model(model, inputs))
        except Misfit as misfit:
            groups = (graph.groups[number].id for number in graph.trail.groups_of(misfit.step))
            return TestRun(place=path[-1], misfits=frozenset(groups))
        except FAILURES:
            return TestRun(place=path[-1])
    return TestRun([tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)])
