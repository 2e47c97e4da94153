"""The training loop: steps with hooks under a budget of steps or seconds, checks, averages, and exact resume.

Everything random in step n follows from the seed and n, and a checkpoint holds weights, optimizer, averages and hooks,
so that a run that is killed and started again takes the same steps as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from eightfold.compress.train.averaging import Average, Best, holding, restore, snapshot
from eightfold.compress.train.checkpoint import Checkpoint, load_model, load_optimizer, optimizer_tensors
from eightfold.compress.train.devices import Devices
from eightfold.compress.train.hooks import Batch, Hook, Run
from eightfold.compress.train.log import CHECK, Log
from eightfold.compress.train.memory_layout import MemoryLayout
from eightfold.compress.train.options import CLOCKS, DivergedError, LoopOptions, Trained
from eightfold.compress.types import Loss
from eightfold.errors import UsageError
from eightfold.export.verify.module_runs import evaluating
from eightfold.progress import track

Check = Callable[[nn.Module], float]
SEED_STRIDE = 10_007


def fit(
    model: nn.Module,
    batch_at: Callable[[int], Batch],
    optimizer: Optimizer,
    options: LoopOptions,
    *,
    loss: Loss | None = None,
    hooks: Sequence[Hook] = (),
    check: Check | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
    devices: Devices | None = None,
) -> Trained:
    """Train `model` in place. It ends with the best checked state, or with the last one where nothing is checked.

    Args:
        model: any module.
        batch_at: number of a batch -> the batch, the same for the same number every time.
        optimizer: over the model's parameters; the rates of its groups are the peaks of the schedule.
        options: see LoopOptions.
        loss: (outputs, target) -> scalar; hooks add to it. None: hooks give all of it.
        hooks: penalties, teachers, quantizers, masks.
        check: a model in evaluation mode -> a number, larger is better; also called before the first step.
        checkpoint: where the state goes while the run lasts; read first if it exists. The caller removes it.
        log: rows of losses and checks.
        devices: where to train; a GPU if there is one, by default.

    Raises:
        DivergedError: a loss or gradient is NaN or infinite; names the step and the batch. The model holds the best
            state so far, or that before the step.
        UsageError: no budget, or one too short for a single step.
        ModelError: the checkpoint is of another network.
    """
    if (options.steps is None) == (options.seconds is None):
        raise UsageError("a training run with steps and seconds both given or both missing", allowed="one of them")
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    devices = devices or Devices()
    wrapped, wrapped_optimizer = devices.prepare(model, optimizer)
    run = Run(devices.bare(wrapped), wrapped_optimizer)
    layout = MemoryLayout()
    if options.steps != 0:
        layout.choose(run.model, devices.place(batch_at(0)), devices, training=options.training_mode)
    average = Average(run.model, options.average) if options.average else None
    loop = _Loop(
        wrapped, run, batch_at, options, loss, hooks, check, checkpoint, log or Log(), devices, layout, average
    )
    try:
        return loop.train()
    finally:
        layout.release(run.model)


@dataclass
class _Loop:
    wrapped: nn.Module
    run: Run
    batch_at: Callable[[int], Batch]
    options: LoopOptions
    loss: Loss | None
    hooks: Sequence[Hook]
    check: Check | None
    path: Path | None
    log: Log
    devices: Devices
    layout: MemoryLayout
    average: Average | None
    best: Best = field(default_factory=Best)
    recent: list[float] = field(default_factory=list)
    checked: int = 0
    before_s: float = 0.0  # elapsed in earlier runs
    begun: float = 0.0
    saved: float = field(default_factory=time.monotonic)

    def train(self) -> Trained:
        self._resume()
        self.devices.wait()  # all have read the checkpoint before one writes it
        for hook in self.hooks:
            hook.on_start(self.run)
        self.begun, self.saved = self._now(), time.monotonic()
        stopped = ""
        try:
            if self.check is not None and not self.checked:
                self._take_check()
            for _ in track(self._percents(), self.options.what, total=100):
                if self._out_of_patience():
                    stopped = "early"
                    break
            if self.run.step > self.best.step:
                self._take_check()
        except KeyboardInterrupt:
            stopped = "interrupted"
        except DivergedError:
            self._finish()
            raise
        self._finish()
        losses = self.recent[-20:]
        return Trained(
            self.run.step,
            self.run.elapsed_s,
            sum(losses) / len(losses) if losses else math.nan,
            self.best.value if self.check is not None else math.nan,
            self.best.step,
            stopped,
            tuple(self.log.rows),
        )

    def _now(self) -> float:
        return CLOCKS[self.options.clock]()

    def _percents(self) -> Iterator[int]:
        """Take steps; yield once for each hundredth of the run that is done."""
        yielded = int(100 * self._progress())
        while not self._done() and not self._out_of_patience():
            self.run.progress = min(1.0, self._progress())
            self._step()
            self._require_time()
            if self.check is not None and int(self._progress() * self.options.checks) >= max(self.checked, 1):
                self._take_check()
            if time.monotonic() - self.saved > self.options.save_every_s:
                self._save()
            while yielded < min(100, int(100 * self._progress())):
                yielded += 1
                yield yielded

    def _done(self) -> bool:
        """A run by time takes one step at least: it shows how long one is."""
        return self._progress() >= 1 and (self.options.steps is not None or self.run.step > 0)

    def _progress(self) -> float:
        if self.options.steps is not None:
            return self.run.step / self.options.steps if self.options.steps else 1.0
        assert self.options.seconds is not None, "fit checked it"
        self.run.elapsed_s = self.before_s + self._now() - self.begun
        return self.devices.mean(self.run.elapsed_s) / self.options.seconds

    def _require_time(self) -> None:
        """The first step of a run shows what one takes."""
        seconds = self.options.seconds
        if seconds is not None and self.run.step == 1 and self._progress() >= 1:
            self._finish()
            raise UsageError(
                f"{self.options.what}: {seconds:.3g} s are too short for one step, which took "
                f"{self.run.elapsed_s:.3g} s with the first check",
                allowed=f"{2 * self.run.elapsed_s / 60:.2g} minutes or more; some hundred steps do good",
            )

    def _step(self) -> None:
        run, options = self.run, self.options
        self.wrapped.train(options.training_mode)
        torch.manual_seed(options.seed * SEED_STRIDE + run.step)
        factor = options.rate.factor(run.progress)
        for group in run.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        run.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for part in range(options.accumulate):
            number = run.step * options.accumulate + part
            with self.devices.accumulating(self.wrapped, part == options.accumulate - 1):
                for name, value in self._backward(number).items():
                    sums[name] = sums.get(name, 0.0) + value / options.accumulate
        for hook in self.hooks:
            hook.after_backward(run)
        self._require_finite(_gradient_norm(run.model, options.clip), "gradient", run.step * options.accumulate)
        run.optimizer.step()
        for hook in self.hooks:
            hook.after_step(run)
        if self.average is not None:
            self.average.update(run.step)
        run.step += 1
        run.elapsed_s = self.before_s + self._now() - self.begun
        self.recent = [*self.recent[-99:], sum(sums.values())]
        self.log.add({"step": run.step, "seconds": run.elapsed_s, "rate": factor, **sums})

    def _backward(self, number: int) -> Mapping[str, float]:
        batch = self.layout.of_batch(self.devices.place(self.batch_at(number)))
        with ExitStack() as stack, self.devices.autocast():
            for hook in self.hooks:
                stack.enter_context(hook.around_forward(self.run, batch))
            outputs = self.layout.of_outputs(self.wrapped(*batch.inputs))
        with self.devices.autocast():
            terms = {} if self.loss is None else {"loss": self.loss(outputs, batch.target)}
            for hook in self.hooks:
                terms |= hook.terms(self.run, batch, outputs)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        self._require_finite(float(total.detach()), "loss", number)
        self.devices.backward(total / self.options.accumulate)
        return {name: self.devices.mean(float(term.detach())) for name, term in terms.items()}

    def _require_finite(self, value: float, name: str, batch: int) -> None:
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.options.what}: the {name} became {value} at step {self.run.step + 1}, batch {batch + 1}",
                remedy="lower the learning rate; the last good state is kept",
            )

    def _take_check(self) -> None:
        if self.check is None:
            return
        state = self._state()
        with holding(self.run.model, state), evaluating(self.run.model), torch.no_grad():
            value = self.devices.mean(float(self.check(self.run.model)))
        self.checked = int(self._progress() * self.options.checks) + 1
        if value > self.best.value:
            self.best = Best(value, self.run.step, 0, state)
        else:
            self.best.since += 1
        self.log.add({"step": self.run.step, "seconds": self.run.elapsed_s, CHECK: value})
        self._save()

    def _out_of_patience(self) -> bool:
        return self.options.patience is not None and self.best.since >= self.options.patience

    def _state(self) -> dict[str, Tensor]:
        return self.average.state() if self.average is not None and self.run.step else snapshot(self.run.model)

    def _finish(self) -> None:
        """The model gets the best state, or the average where nothing is checked."""
        if self.best.state is not None:
            restore(self.run.model, self.best.state)
        elif self.average is not None and self.run.step:
            restore(self.run.model, self.average.state())
        self.run.model.eval()
        for group in self.run.optimizer.param_groups:
            group["lr"] = group["peak"]
        if self.devices.is_main:
            self.log.write()

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.path is None or not self.devices.is_main:
            return
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": snapshot(self.run.model),
            "optimizer": optimizer_tensors(self.run.optimizer),
            **{f"hook{place}": hook.tensors() for place, hook in enumerate(self.hooks)},
        }
        if self.average is not None:
            parts["average"] = self.average.state()
        if self.best.state is not None:
            parts["best"] = self.best.state
        facts = {
            "step": self.run.step,
            "elapsed_s": self.before_s + self._now() - self.begun,
            "checked": self.checked,
            "peaks": [group["peak"] for group in self.run.optimizer.param_groups],
            "best": [self.best.value, self.best.step, self.best.since] if self.best.state is not None else None,
        }
        Checkpoint(parts, facts).save(self.path)
        self.log.write()

    def _resume(self) -> None:
        if self.path is None or not self.path.is_file():
            return
        stored = Checkpoint.load(self.path)
        load_model(self.run.model, stored.parts.get("model", {}), self.path)
        load_optimizer(self.run.optimizer, stored.parts.get("optimizer", {}))
        if self.average is not None:
            self.average.load(stored.parts["average"])
        for place, hook in enumerate(self.hooks):
            hook.load(stored.parts.get(f"hook{place}", {}))
        facts = stored.facts
        self.run.step, self.before_s, self.checked = facts["step"], facts["elapsed_s"], facts["checked"]
        self.run.elapsed_s = self.before_s
        for group, peak in zip(self.run.optimizer.param_groups, facts["peaks"], strict=True):
            group["peak"] = peak
        if facts["best"] is not None:
            value, step, since = facts["best"]
            self.best = Best(value, step, since, dict(stored.parts["best"]))
        self.log.resume(self.run.step)


def _gradient_norm(model: nn.Module, clip: float | None) -> float:
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    return float(nn.utils.clip_grad_norm_(parameters, clip if clip is not None else math.inf))
