"""Compares the outputs of two networks without knowing their task: logits, score maps with boxes, or plain values.

The kind of each output follows from the original's outputs on sample images. Channels that stay in [0, 1] are scores;
the others beside them (boxes, masks, key points) count where the original is confident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from eightfold.export.verify.module_runs import output_tensors

Kind = Literal["logits", "maps"]
LEAST_SCORES = 1e-3  # of a sum of scores: below it an image holds nothing
TEMPERATURE = 2.0
EXACT = 10.0


@dataclass(frozen=True)
class OutputKind:
    """One output tensor of a network, and how two of them are compared.

    Attributes:
        kind: "logits" (batch, classes), compared as distributions; "maps", compared channel by channel.
        axis: of the channels.
        scores: which channels are scores in [0, 1]; bool [channels].
        spread: standard deviation of each other channel, weighted by confidence, or of centred logits; [channels].
    """

    kind: Kind
    axis: int = 1
    scores: Tensor | None = None
    spread: Tensor | None = None

    def loss(self, target: Tensor, output: Tensor) -> Tensor:
        """0 where both are equal; differentiable in `output`."""
        if self.kind == "logits":
            soft = functional.log_softmax(output.float() / TEMPERATURE, 1)
            wanted = functional.log_softmax(target.float() / TEMPERATURE, 1)
            apart = functional.kl_div(soft, wanted, reduction="batchmean", log_target=True)
            error = (_centred(output) - _centred(target)).square().mean() / self._spread(target.device).square().mean()
            return TEMPERATURE**2 * apart + error
        scores, values, confidence = self._parts(target)
        own_scores, own_values, _ = self._parts(output)
        total = target.new_zeros(())
        if scores.numel():
            total = total + _cross_entropy_gap(own_scores, scores) / confidence.sum().clamp(min=1.0)
        if values.numel():
            apart = functional.smooth_l1_loss(own_values, values, reduction="none", beta=0.1)
            total = total + (confidence * apart).sum() / (confidence.sum().clamp(min=1e-6) * values.shape[1]) * 4
        return total

    def agreement(self, target: Tensor, output: Tensor) -> float:
        """1 if both are equal; 0 if `output` is no better than a constant.

        1 minus the squared error relative to the original's variance: of logits, of scores, and of the other channels
        of maps weighted by confidence. Beside scores, errors of other channels count `EXACT` times: a box that is off
        by a third of the boxes' spread is no match.
        """
        if self.kind == "logits":
            around = (_centred(target) - _centred(target).mean(0)).square().sum().clamp(min=1e-12)
            return 1 - float((_centred(output) - _centred(target)).square().sum() / around)
        scores, values, confidence = self._parts(target)
        own_scores, own_values, _ = self._parts(output)
        found = []
        if scores.numel() and float(scores.sum()) > LEAST_SCORES:
            found.append(1 - float((own_scores - scores).square().sum() / scores.square().sum()))
        if values.numel():
            weight = confidence / confidence.sum().clamp(min=1e-12)
            mean = (weight * values).sum((0, 2), keepdim=True)
            around = (weight * (values - mean).square()).sum((0, 2)).clamp(min=1e-12)
            error = float(((weight * (own_values - values).square()).sum((0, 2)) / around).mean())
            found.append(1 - (EXACT if scores.numel() else 1.0) * error)
        return sum(found) / len(found) if found else 1.0

    def importance(self, target: Tensor) -> Tensor:
        """Weight of a change at each position of an output, so that the squares of weighted changes add up to their
        share of the output: [1] or broadcastable to `target`."""
        if self.kind == "logits":
            around = target.float() - target.float().mean(1, keepdim=True)
            return 1 / around.square().sum().sqrt().clamp(min=1e-6)
        assert self.scores is not None, "maps know their channels"
        scores, values, confidence = self._parts(target)
        flat = target.float().movedim(self.axis, 1).flatten(2) if target.dim() > 2 else target.float()[..., None]
        weight = torch.zeros_like(flat)
        mask = self.scores.to(weight.device)
        if scores.numel():
            weight[:, mask] = 1 / scores.square().sum().sqrt().clamp(min=LEAST_SCORES)
        if values.numel():
            share = confidence / (confidence.sum().clamp(min=LEAST_SCORES) * values.shape[1])
            weight[:, ~mask] = share.sqrt() / self._spread(weight.device)[~mask].reshape(1, -1, 1)
        if target.dim() == 2:
            return weight[..., 0]
        shape = target.movedim(self.axis, 1).shape
        return weight.reshape(shape).movedim(1, self.axis)

    def _parts(self, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores [n, s, positions], values in units of their spread [n, v, positions], confidence [n, 1, positions]."""
        assert self.scores is not None, "maps know their channels"
        flat = tensor.float().movedim(self.axis, 1).flatten(2) if tensor.dim() > 2 else tensor.float().unsqueeze(2)
        mask = self.scores.to(flat.device)
        scores, values = flat[:, mask], flat[:, ~mask] / self._spread(flat.device)[~mask].reshape(1, -1, 1)
        confidence = scores.amax(1, keepdim=True) if scores.shape[1] else torch.ones_like(flat[:, :1])
        return scores, values, confidence.detach()

    def _spread(self, device: torch.device) -> Tensor:
        assert self.spread is not None, "maps know their channels"
        return self.spread.to(device)


@dataclass(frozen=True)
class OutputKinds:
    """All outputs of a network that hold floating-point numbers, in order."""

    kinds: tuple[OutputKind | None, ...]

    def loss(self, target: object, output: object) -> Tensor:
        """Sum over outputs; see OutputKind."""
        terms = [kind.loss(a, b) for kind, a, b in self._pairs(target, output)]
        return torch.stack(terms).sum()

    def agreement(self, targets: Sequence[object], outputs: Sequence[object]) -> float:
        """Mean over outputs, each over all batches; see OutputKind."""
        pairs = [self._pairs(target, output) for target, output in zip(targets, outputs, strict=True)]
        values: list[float] = [
            rows[0][0].agreement(torch.cat([a for _, a, _ in rows]), torch.cat([b for _, _, b in rows]))
            for rows in zip(*pairs, strict=True)
        ]
        return sum(values) / len(values)

    def _pairs(self, target: object, output: object) -> list[tuple[OutputKind, Tensor, Tensor]]:
        triples = zip(self.kinds, output_tensors(target), output_tensors(output), strict=True)
        return [(kind, a, b) for kind, (_, a), (_, b) in triples if kind is not None]


def kinds_of(samples: Sequence[object]) -> OutputKinds:
    """The kinds of a network's outputs, from what it puts out for some batches."""
    by_output = zip(*([tensor for _, tensor in output_tensors(sample)] for sample in samples), strict=True)
    return OutputKinds(tuple(_kind_of(list(tensors)) for tensors in by_output))


def answers_alike(samples: Sequence[object]) -> bool:
    """True if a network gives every image of these batches the same output."""
    rows = zip(*([tensor for _, tensor in output_tensors(sample)] for sample in samples), strict=True)
    return all(_alike(torch.cat([t.reshape(len(t), -1) for t in tensors if t.dim()])) for tensors in rows)


def _alike(rows: Tensor) -> bool:
    return bool((rows == rows[:1]).all())


def _kind_of(tensors: Sequence[Tensor]) -> OutputKind | None:
    if not tensors[0].is_floating_point() or tensors[0].dim() < 2:
        return None
    whole = torch.cat([tensor.float() for tensor in tensors])
    bounded = bool((whole >= 0).all()) and bool((whole <= 1).all())
    if whole.dim() == 2 and whole.shape[1] > 1 and not bounded:
        spread = _centred(whole).std(0).clamp(min=1e-6)
        return OutputKind("logits", spread=spread)
    axis = 2 if whole.dim() == 3 and whole.shape[2] < whole.shape[1] else 1
    flat = whole.movedim(axis, 1).flatten(2) if whole.dim() > 2 else whole.unsqueeze(2)
    scores = ((flat >= 0) & (flat <= 1)).all(0).all(1)
    confidence = flat[:, scores].amax(1, keepdim=True) if scores.any() else torch.ones_like(flat[:, :1])
    weight = confidence / confidence.sum().clamp(min=1e-12)
    mean = (weight * flat).sum((0, 2), keepdim=True)
    spread = (weight * (flat - mean).square()).sum((0, 2)).sqrt().clamp(min=1e-6)
    return OutputKind("maps", axis, scores, spread)


def _centred(logits: Tensor) -> Tensor:
    """A constant added to all logits of an image changes nothing."""
    return logits.float() - logits.float().mean(1, keepdim=True)


def _cross_entropy_gap(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy minus what it is for equal scores, summed."""
    own, wanted = output.clamp(1e-6, 1 - 1e-6), target.clamp(1e-6, 1 - 1e-6)
    apart = wanted * (wanted.log() - own.log()) + (1 - wanted) * ((1 - wanted).log() - (1 - own).log())
    return apart.sum()
