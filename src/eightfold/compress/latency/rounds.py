"""Scores of a network that is pruned in part, for rounds of pruning to a latency budget."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.criteria.scores import Criterion, layer_scores
from eightfold.compress.modules.reestimate import reestimate_norms
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.plan.selection_rules import LayerScores
from eightfold.compress.surgery.surgery import apply_plan_to_module
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import Args, Loss


def round_limits(whole_ms: float, limit_ms: float, rounds: int) -> list[float]:
    """Limits of the rounds before the last: equal factors from the whole network to the budget.

    >>> round_limits(8.0, 1.0, 3)
    [4.0, 2.0]
    """
    factor = (limit_ms / whole_ms) ** (1 / rounds)
    return [round(whole_ms * factor**number, 9) for number in range(1, rounds)]


@dataclass(frozen=True)
class Rescoring:
    """Scores channels on a copy of the network that is pruned by a plan.

    Attributes:
        scores: of the whole network, group id -> [layers, width].
        batches: images; with them the batch norms of the copy are re-estimated first.
    """

    model: nn.Module
    example_inputs: Any
    graph: ChannelGraph
    scores: LayerScores
    score: str | Criterion
    batches: Sequence[Args] = ()
    targets: Sequence[Any] = ()
    loss: Loss | None = None
    seed: int = 0

    def __call__(self, plan: PrunePlan) -> LayerScores:
        """Scores in the numbering of the whole network; channels that are gone have none."""
        pruned = copy.deepcopy(self.model)
        apply_plan_to_module(pruned, plan)
        if self.batches:
            reestimate_norms(pruned, self.batches)
        graph = trace(pruned, self.example_inputs)
        found = layer_scores(Evidence(pruned, graph, self.batches, self.targets, self.loss, self.seed), self.score)
        return {name: self._placed(old, found.get(name), plan.kept.get(name)) for name, old in self.scores.items()}

    @staticmethod
    def _placed(old: np.ndarray, new: np.ndarray | None, kept: np.ndarray | None) -> np.ndarray:
        places = np.arange(old.shape[1]) if kept is None else np.asarray(kept)
        if new is None or new.shape != (len(old), len(places)):  # a group that the pruned network has not: as it was
            new = old[:, places]
        placed = np.zeros_like(old)
        placed[:, places] = new
        return placed
