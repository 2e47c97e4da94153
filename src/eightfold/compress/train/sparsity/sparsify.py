"""Sparse training in any loop: a context in which every optimizer step feels the penalty."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from eightfold.compress.train.sparsity.history import ScaleHistory, dead_share
from eightfold.compress.train.sparsity.hook import SNAPSHOTS, DeathGuard, require_owned, update_of
from eightfold.compress.train.sparsity.penalties import PENALTIES, Penalty
from eightfold.compress.train.sparsity.proximal import Update
from eightfold.compress.train.sparsity.scales import LayerSet
from eightfold.compress.train.sparsity.strength import Kind, Strength
from eightfold.compress.types import Args, ExampleInputs, Kwargs
from eightfold.errors import UnknownNameError, UsageError

CONSTANT_SNAPSHOT = 100  # steps between snapshots where the number of steps is not known


class Sparsifier:
    """State of `sparsify` inside its context.

    Attributes:
        penalty: what acts on each step.
        steps: optimizer steps that felt it.
        history: histograms of channel sizes.
    """

    def __init__(self, penalty: Penalty, total: int | None, update: Update | None = None) -> None:
        self.penalty, self.steps, self.history = penalty, 0, ScaleHistory()
        self._update = update_of(penalty, update)
        self._total, self._guard = total, DeathGuard(penalty)
        self._own = {id(parameter) for parameter in penalty.parameters()}
        self._others: list[Any] = []
        self.history.add(0, penalty.magnitudes())

    @property
    def dead_share(self) -> float:
        """Share of channels below 1% of the largest of their layer, now."""
        return dead_share(self.penalty.magnitudes())

    def before_step(self, optimizer: Optimizer, args: Args, kwargs: Kwargs) -> None:
        """Optimizer pre-hook. A gradient scaler has unscaled by now, or tells a fused optimizer its scale."""
        if not self._owns(optimizer):
            self._others.append(optimizer)
            return
        if any(callable(each) for each in (*args, *kwargs.values())):
            raise UsageError(
                "an optimizer that is stepped with a closure inside sparsify",
                allowed="loss.backward(), then optimizer.step()",
            )
        if self._update == "proximal":
            self.penalty.before_step(self._progress())
        else:
            scale = getattr(optimizer, "grad_scale", None)
            self.penalty.add_gradients(self._progress(), 1.0 if scale is None else float(scale))

    def after_step(self, optimizer: Optimizer, args: Args, kwargs: Kwargs) -> None:
        """Optimizer post-hook."""
        if not self._owns(optimizer):
            return
        if self._update == "proximal":
            self.penalty.shrink(self._progress(), optimizer)
        self.steps += 1
        every = CONSTANT_SNAPSHOT if self._total is None else max(1, self._total // SNAPSHOTS)
        if self.steps % every == 0:
            sizes = self.penalty.magnitudes()
            self.history.add(self.steps, sizes)
            self._guard.check(self.steps, sizes)

    def _owns(self, optimizer: Optimizer) -> bool:
        return any(id(each) in self._own for group in optimizer.param_groups for each in group["params"])

    def finish(self) -> None:
        """Last snapshot. Raises UsageError where only optimizers of other models took steps."""
        if self._others and not self.steps:
            require_owned(self.penalty.parameters(), self._others)
        self.history.add(self.steps, self.penalty.magnitudes())

    def _progress(self) -> float:
        return 0.0 if self._total is None else min(1.0, self.steps / self._total)


def penalty_of(
    name: str, model: nn.Module, strength: Strength, layers: LayerSet, example_inputs: ExampleInputs | None
) -> Penalty:
    """A registered penalty by name. Raises UnknownNameError."""
    if name not in PENALTIES:
        raise UnknownNameError.of("penalty", name, PENALTIES)
    return PENALTIES[name](model, strength, layers, example_inputs)


@contextlib.contextmanager
def sparsify(
    model: nn.Module,
    *,
    s: float = 1e-4,
    layers: LayerSet = "all",
    schedule: Kind = "constant",
    penalty: str = "scales",
    update: Update | None = None,
    steps: int | None = None,
    example_inputs: ExampleInputs | None = None,
) -> Iterator[Sparsifier]:
    """Train sparsely inside: each step of an optimizer of `model` feels the penalty.

    Gradients are complete and unscaled then, so that accumulation, clipping, torch's gradient scaler and
    DistributedDataParallel need no change in the loop.

    Args:
        model: the network that the loop trains.
        s: strength of the penalty, per scale. 1e-4 is usual; `suggested_strength` fits it to a schedule.
        layers: for "scales": "all" batch norms, or those that a rule prunes: "normal", "shortcut", "layer".
        schedule: "constant", "global", "local", "dynamic" or "release", see `Strength`; all but the first need `steps`.
        penalty: "scales" (L1 on batch norm scales), "coupled-scales" (a group lasso over the scales of each coupled
            channel) or "group-lasso" (over all weights of each coupled channel).
        update: "proximal": scales shrink by a threshold after each step, exactly to zero; "subgradient": the penalty
            joins the gradients. By default proximal where the penalty has that.
        steps: optimizer steps of the whole training.
        example_inputs: what the model is called with; needed by all layer sets but "all", and by penalties on coupled
            channels.

    Yields:
        The state: `dead_share`, `history`.

    Raises:
        UsageError: arguments that do not fit, or an optimizer of another model.
        ModelError: nothing to penalize; or s was so large that every channel died.

    Example:
        >>> import torch, eightfold as ef
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with ef.sparsify(model, s=1e-4) as sparse:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.rand(2, 3, 8, 8)).square().mean().backward()
        ...         optimizer.step()
        >>> sparse.steps
        3
    """
    if schedule != "constant" and steps is None:
        raise UsageError(f"the schedule {schedule!r} without steps", allowed="steps=... of the whole training")
    state = Sparsifier(penalty_of(penalty, model, Strength(s, schedule), layers, example_inputs), steps, update)
    handles = register_optimizer_step_pre_hook(state.before_step), register_optimizer_step_post_hook(state.after_step)
    try:
        yield state
    finally:
        for handle in handles:
            handle.remove()
    state.finish()
