"""Random search over widths, judged after batch norms are re-estimated (EagleEye: Li et al. 2020, arXiv:2007.02491).

A pruned network whose norms still hold the old statistics says little about what fine-tuning would make of it; with
statistics re-estimated on a few batches its accuracy ranks candidates well, at the cost of forward passes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.check import checked
from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import Criterion, combined, layer_scores
from eightfold.compress.modules.batches import batches_of
from eightfold.compress.modules.reestimate import reestimate_norms
from eightfold.compress.plan.costs import macs_cost
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.select import matches, round_count, top
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph, Group, Kept
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ExampleInputs, ImageBatches
from eightfold.errors import UsageError
from eightfold.progress import track

DRAWS_PER_CANDIDATE = 2000


@dataclass(frozen=True)
class PrunedCandidate:
    """A plan of the search, with its metric and its share of the original MACs."""

    plan: PrunePlan
    metric: float
    macs_share: float


@dataclass(frozen=True)
class SearchResult:
    """All candidates, the best first."""

    candidates: tuple[PrunedCandidate, ...]

    @property
    def best(self) -> PrunePlan:
        """The plan of the best candidate."""
        return self.candidates[0].plan


def search_pruning(
    model: nn.Module,
    example_inputs: ExampleInputs,
    evaluate: Callable[[nn.Module], float],
    images: ImageBatches,
    *,
    macs_share: float = 0.5,
    tolerance: float = 0.05,
    candidates: int = 50,
    score: str | Criterion = "l1",
    multiple: int = 8,
    ignore: Sequence[str] = (),
    seed: int = 0,
) -> SearchResult:
    """Draw random widths that meet the budget, re-estimate batch norms, evaluate, and rank. The model is untouched.

    Args:
        model: any module.
        example_inputs: what the model is called with.
        evaluate: a pruned model in evaluation mode -> its metric, larger is better.
        images: what batch norms are re-estimated on: one tensor, or batches of model inputs. No labels.
        macs_share: multiply-accumulates to keep, as a share; candidates within `tolerance` of it are tried.
        candidates: how many to evaluate; the paper's code tries 200.
        score: which channels stay at a given width.
        multiple, ignore: as `plan_pruning` takes them.
        seed: for the draws.

    Returns:
        Every candidate with its plan, metric and share of the multiply-accumulates.

    Raises:
        UsageError: no draw meets the budget.
    """
    graph = trace(model, example_inputs)
    batches = batches_of(images)
    scores = combined(layer_scores(Evidence(model, graph, batches, seed=seed), score))
    found = []
    for kept, share in track(
        _draws(graph, macs_share, tolerance, multiple, ignore, seed, candidates), "searching", total=candidates
    ):
        chosen = {name: top(scores[name], count) for name, count in kept.items()}
        plan = PrunePlan.from_graph(
            graph,
            chosen,
            multiple=multiple,
            rule="search",
            score=score if isinstance(score, str) else getattr(score, "__name__", "custom"),
            budget=f"{macs_share:g} of the MACs, within {tolerance:g}",
        )
        plan = checked(model, example_inputs, plan, graph)
        found.append(PrunedCandidate(plan, _metric(model, plan, batches, evaluate), share))
    return SearchResult(tuple(sorted(found, key=lambda candidate: -candidate.metric)))


def _metric(model: nn.Module, plan: PrunePlan, batches: Sequence[Any], evaluate: Callable[[nn.Module], float]) -> float:
    pruned = copy.deepcopy(model)
    apply_plan_to_module(pruned, plan)
    reestimate_norms(pruned, batches)
    return evaluate(pruned.eval())


def _draws(
    graph: ChannelGraph,
    macs_share: float,
    tolerance: float,
    multiple: int,
    ignore: Sequence[str],
    seed: int,
    candidates: int,
) -> Iterable[tuple[dict[str, int], float]]:
    """Random counts by group whose cost is close enough to the budget, and that cost as a share."""
    generator = np.random.default_rng(seed)
    cost = macs_cost(graph)
    total = cost({})
    groups = [g for g in graph.free if g.prunable(multiple) and not any(matches(g, pattern) for pattern in ignore)]
    closest, left = np.inf, candidates
    for _ in range(candidates * DRAWS_PER_CANDIDATE):
        counts = _random_counts(groups, multiple, generator)
        share = cost(_as_kept(counts)) / total
        if abs(share - macs_share) <= tolerance:
            yield counts, share
            left -= 1
            if not left:
                return
        closest = share if abs(share - macs_share) < abs(closest - macs_share) else closest
    if left == candidates:
        raise UsageError(
            f"no random plan keeps {macs_share:g} of the MACs within {tolerance:g}; the closest keeps {closest:.3g}",
            remedy="widen the tolerance, or lower the multiple",
        )


def _random_counts(groups: Sequence[Group], multiple: int, generator: np.random.Generator) -> dict[str, int]:
    return {group.id: round_count(group.width * float(generator.random()), group, multiple) for group in groups}


def _as_kept(counts: dict[str, int]) -> Kept:
    return {name: np.arange(count) for name, count in counts.items()}
