"""The way from a model to a plan that is known to run: trace, score, select, check."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from torch import nn

from eightfold.compress.check import checked
from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import Criterion, layer_scores
from eightfold.compress.latency.prepare import Subject
from eightfold.compress.latency.request import LatencyRequest, device_multiple, latency_request
from eightfold.compress.latency.rounds import Rescoring
from eightfold.compress.latency.rule import AUTO, LATENCY, blocks_to_remove, latency_plan
from eightfold.compress.modules.batches import batches_of, target_batches
from eightfold.compress.modules.modules import is_several_calls
from eightfold.compress.plan.budget import CostBudget, budgets_of, tell_slack, within
from eightfold.compress.plan.latency.budget_text import LatencyBudget
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import LayerRange, Rounding, Selection, selection_threshold
from eightfold.compress.plan.selection_rules import MEASURED, LayerScores, Merge, suggested_limit
from eightfold.compress.sensitivity.rule import error_curves, measured_plan
from eightfold.compress.surgery.blocks import bypassed, choose_blocks, require_images_for_blocks
from eightfold.compress.trace.groups import ChannelGraph, Kept
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs, ImageBatches, Loss
from eightfold.defaults import KEEP_RATIO, MULTIPLE, PRUNING_RULE, PRUNING_SCORE
from eightfold.errors import UsageError
from eightfold.files import PathLike, sha256_of_bytes


class UnreachedWarning(UserWarning):
    """Some parameters took no part in the calls that were traced."""


def plan_module(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    rule: str = PRUNING_RULE,
    score: str | Criterion = PRUNING_SCORE,
    keep_ratio: float = KEEP_RATIO,
    multiple: int | Literal["auto"] = MULTIPLE,
    ignore: Sequence[str] = (),
    keep: Mapping[str, float] | None = None,
    max_macs: float | None = None,
    max_params: float | None = None,
    latency: str | float | LatencyRequest | None = None,
    target: str = "",
    precision: str = "fp32",
    batch: int = 1,
    threads: int | None = None,
    profile: PathLike | None = None,
    rounds: int = 1,
    target_weights: Sequence[float] = (),
    memory: str | None = None,
    energy: str | None = None,
    rounding: Rounding | None = None,
    layer_keep: float = 0.01,
    merge: Merge = "union",
    ranges: Sequence[LayerRange] = (),
    remove_blocks: int | Sequence[str] = 0,
    block_score: str = "contribution",
    layer_norms: bool = False,
    images: ImageBatches = (),
    targets: Iterable[Any] = (),
    loss: Loss | None = None,
    seed: int = 0,
    graph: ChannelGraph | None = None,
) -> PrunePlan:
    """`eightfold.plan_pruning` of a torch module, which documents the arguments."""
    batches = batches_of(images)
    require_images_for_blocks(remove_blocks, block_score, batches)
    request = latency_request(
        latency, target=target, precision=precision, batch=batch, threads=threads, profile=profile, rounds=rounds,
        target_weights=target_weights, memory=memory, energy=energy,
    )  # fmt: skip
    if request is not None:
        _require_one_budget(request, rule, max_macs, max_params)
    conditions = request or LatencyRequest(LatencyBudget(), target, precision, batch, threads, profile)
    multiple = device_multiple(multiple, [each.store for each in conditions.conditions])
    calls = example_inputs if is_several_calls(example_inputs) else [example_inputs]
    selection = Selection(
        rule=rule,
        keep_ratio=keep_ratio,
        multiple=multiple,
        ignore=tuple(ignore),
        keep=dict(keep or {}),
        rounding=rounding,
        layer_keep=layer_keep,
        merge=merge,
        ranges=tuple(ranges),
    )
    if not isinstance(remove_blocks, int) and tuple(remove_blocks) == AUTO:
        if request is None:
            raise UsageError("remove_blocks='auto' without a latency budget", allowed="latency=..., or a number")
        graph = graph or trace(model, example_inputs, layer_norms=layer_norms)
        scores = layer_scores(Evidence(model, graph, batches, target_batches(targets), loss, seed), score)
        subject = Subject(model, example_inputs, graph, scores, selection, batches=batches)
        remove_blocks, request = blocks_to_remove(subject, request)
    blocks = choose_blocks(model, batches or batches_of(calls), remove_blocks, block_score)
    removed = tuple(block.removed() for block in blocks)
    with bypassed(model, removed):
        if graph is None or removed:
            with collector_paused():
                graph = trace(model, example_inputs, layer_norms=layer_norms)
        scores = layer_scores(Evidence(model, graph, batches, target_batches(targets), loss, seed), score)
        budgets = budgets_of(model, graph, max_macs=max_macs, max_params=max_params)
        tell_slack(budgets)

        whole_budget = bool(budgets) or request is not None or rule == MEASURED

        def plan_of(kept: Kept) -> PrunePlan:
            plan = PrunePlan.from_graph(
                graph,
                kept,
                removed_blocks=removed,
                multiple=multiple,
                rule=rule if request is None else LATENCY,
                score=score if isinstance(score, str) else getattr(score, "__name__", "custom"),
                budget=_words(budgets, request) or f"keep ratio {keep_ratio:g}",
                suggested_limit=suggested_limit(scores).removable,
                threshold=None if whole_budget else selection_threshold(graph, scores, selection),
                scores_digest=digest_of_scores(scores),
            )
            with collector_paused():
                return checked(model, example_inputs, plan, graph)

        if request is not None:
            curves = error_curves(model, graph, batches, scores, selection) if rule == MEASURED else None
            rescored = Rescoring(
                model, example_inputs, graph, scores, score, batches, target_batches(targets), loss, seed
            )
            subject = Subject(model, example_inputs, graph, scores, selection, curves, batches)
            plan = latency_plan(subject, request, plan_of, rescored)
        elif rule == MEASURED:
            plan = measured_plan(model, graph, batches, scores, selection, budgets, plan_of)
        else:
            plan = plan_of(within(budgets, graph, scores, selection))
    _tell_unreached(plan)
    return plan


def _require_one_budget(request: LatencyRequest, rule: str, max_macs: float | None, max_params: float | None) -> None:
    """Raise UsageError, before anything is measured, for options that a latency budget excludes."""
    if max_macs is not None or max_params is not None:
        raise UsageError("a latency budget beside one of MACs or parameters", allowed="one of them")
    if rule == MEASURED and request.rounds > 1:
        raise UsageError(
            f"{request.rounds} rounds with the rule measured, whose errors hold for the whole network",
            allowed="rounds with scores, or one round",
        )


def _words(budgets: Sequence[CostBudget], request: LatencyRequest | None) -> str:
    if request is None:
        return ", ".join(budget.words for budget in budgets)
    where = " and ".join(f"{each.target_name} {each.precision}" for each in request.conditions)
    further = [f"{text} of {name}" for name, text in (("memory", request.memory), ("energy", request.energy)) if text]
    return ", ".join([f"at most {request.budget} of latency on {where} at batch {request.batch}", *further])


def _tell_unreached(plan: PrunePlan) -> None:
    if plan.unreached:
        more = f" and {len(plan.unreached) - 4} more" if len(plan.unreached) > 4 else ""
        names = f"{', '.join(plan.unreached[:4])}{more}"
        warnings.warn(
            f"never used by the traced calls, and left whole: {names}; where these layers read pruned channels, "
            "they fail. Pass example_inputs that reach them, or a list of calls",
            UnreachedWarning,
            stacklevel=3,
        )


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No search for reference cycles meanwhile. A trace makes many objects and no cycles; every search walks them all,
    so that a deep network would pay at each layer for those before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def digest_of_scores(scores: LayerScores) -> str:
    """SHA-256 over group ids and float64 scores."""
    return sha256_of_bytes(b"".join(name.encode() + values.tobytes() for name, values in sorted(scores.items())))
