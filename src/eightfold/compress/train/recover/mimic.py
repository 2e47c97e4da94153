"""The teacher of recovery: the original's features and outputs on the same images, as losses of the pruned network.

Holistic mimicking (Wang et al. 2022, "Compressing models with few samples: mimicking then replacing", CVPR) at all
matching points instead of the last feature alone; the outputs join once the features are close.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eightfold.compress.modules.output_kinds import OutputKinds
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.train.recover.layer_outputs import LayerOutputs
from eightfold.compress.train.recover.points import MatchPoint, mismatch


@dataclass
class Mimic(Hook):
    """Adds "features" and "outputs" to the losses.

    Attributes:
        original: the teacher; frozen by the caller, in evaluation mode.
        output_weight: of the outputs' loss at full strength; 0: features alone.
        phase_in: progress at which the outputs join; they reach full strength 0.1 later.
    """

    original: nn.Module
    points: Sequence[MatchPoint]
    kinds: OutputKinds
    output_weight: float = 1.0
    phase_in: float = 0.2

    @contextlib.contextmanager
    def around_forward(self, run: Run, batch: Batch) -> Iterator[None]:
        names = [point.name for point in self.points]
        with torch.no_grad(), LayerOutputs(self.original, names) as self._wanted:
            self._target = self.original(*batch.inputs)
        with LayerOutputs(run.model, names) as self._seen:
            yield

    def terms(self, run: Run, batch: Batch, outputs: object) -> Mapping[str, Tensor]:
        found = {"features": mismatch(self.points, self._wanted, self._seen)} if self.points else {}
        strength = self.output_weight * min(1.0, max(0.0, (run.progress - self.phase_in) / 0.1))
        if strength or not found:
            found["outputs"] = (strength or 1.0) * self.kinds.loss(self._target, outputs)
        return found
