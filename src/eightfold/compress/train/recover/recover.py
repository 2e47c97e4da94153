"""Recovery: accuracy of a pruned network back from unlabelled images. No labels, no loss, no training code."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eightfold.calib.images.images import ImageSource
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.compensate.compensate import compensate
from eightfold.compress.compensate.consumers import consumers_of
from eightfold.compress.modules.modules import shapes_of
from eightfold.compress.modules.norms import running_means_behind
from eightfold.compress.modules.output_kinds import OutputKinds, answers_alike, kinds_of
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.blocks import bypassed
from eightfold.compress.trace.trace import trace
from eightfold.compress.train.averaging import restore, snapshot
from eightfold.compress.train.devices import Devices, as_device
from eightfold.compress.train.hooks import Batch
from eightfold.compress.train.log import Log
from eightfold.compress.train.loop import fit
from eightfold.compress.train.options import DivergedError, LoopOptions
from eightfold.compress.train.recover.folders import PrunedFolder
from eightfold.compress.train.recover.mimic import Mimic
from eightfold.compress.train.recover.options import RecoverOptions, Recovery
from eightfold.compress.train.recover.points import MatchPoint, points_of
from eightfold.compress.train.recover.rates import relative_groups
from eightfold.compress.train.recover.views import Views, views_of
from eightfold.compress.types import ImageBatches
from eightfold.defaults import RECOVERY_MINUTES
from eightfold.errors import ImageError, ModelError, UsageError
from eightfold.export.verify.module_runs import evaluating, output_tensors
from eightfold.files import PathLike

SAMPLE_BATCHES = 4
AVERAGE = 0.99


def recover(
    pruned: nn.Module | PathLike,
    original: nn.Module,
    images: ImageBatches | ImageSource,
    *,
    plan: PrunePlan | None = None,
    output: PathLike | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    preprocess: Preprocess | None = None,
    image_size: tuple[int, int] | None = None,
    options: RecoverOptions | None = None,
    checkpoint: PathLike | None = None,
    log: PathLike | None = None,
    seed: int = 0,
) -> Recovery:
    """Train `pruned` in place to give what `original` gives on unlabelled images. It ends with the best state found.

    Args:
        pruned: `original` after `apply_plan`, compensated or not; any task. Or the folder that `save_pruned`, `prune`
            of a file or `eightfold prune` wrote: its plan is inferred, and the result goes to `output`.
        original: the network before pruning; unchanged.
        images: a folder, a list of files or arrays (with `preprocess` or `image_size`); one tensor of model-ready
            images [n, channels, height, width]; or a list of batches of model inputs, for several inputs.
        plan: what was pruned from a module.
        output: folder for the recovered network and its plan, where `pruned` is a folder.
        minutes: wall-clock time, 20 by default.
        steps: in place of `minutes`: optimizer steps, so that a run gives the same again.
        preprocess: how an image in a file becomes the input.
        image_size: (height, width), where the preprocessing is [0, 1] RGB, stretched.
        options: see RecoverOptions.
        checkpoint: file that holds the state while the run lasts: a killed run goes on there. Removed at the end.
        log: CSV file of losses and agreements by step.
        seed: of views, order, and images held out.

    Returns:
        Agreements before and after, and how long it took.

    Raises:
        PlanMismatchError: `original` or `pruned` is not the network that the plan belongs to.
        ImageError: no image can be read, or the original answers all of them alike.
        UsageError: a time too short for one step; a module without a plan, a folder without an output.
        DivergedError: a loss became NaN before anything was gained.

    Example:
        >>> import copy, torch, eightfold as ef
        >>> original = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 3), torch.nn.Flatten()
        ... )
        >>> pruned, images = copy.deepcopy(original), torch.rand(16, 3, 8, 8)
        >>> plan = ef.prune(pruned, images[:1], keep_ratio=0.5).plan
        >>> done = ef.recover(pruned, original, images, plan=plan, steps=2)
        >>> done.after >= done.before
        True
    """
    options = options or RecoverOptions()
    if minutes is not None and minutes <= 0:
        raise UsageError(f"{minutes:g} minutes of recovery", allowed="more than 0")
    folder = None if isinstance(pruned, nn.Module) else PrunedFolder.open(pruned, original, output)
    pruned, plan = _parts(pruned, plan, folder)
    plan.check_fits(_original_shapes(original, plan))
    _require_pruned(pruned, plan)
    views = views_of(images, preprocess, batch=options.batch, augment=options.augment, seed=seed, size=image_size)
    session = _Session(pruned, original, plan, views, options, Devices(as_device(options.device), options.amp))
    file = Path(checkpoint) if checkpoint is not None else None
    loop_options = LoopOptions(
        steps=steps,
        seconds=None if steps is not None else 60 * (RECOVERY_MINUTES if minutes is None else minutes),
        clock=options.clock,
        clip=5.0,
        average=AVERAGE,
        checks=20,
        patience=options.patience,
        training_mode=False,
        seed=seed,
        what="recovering",
    )
    done = session.run(loop_options, file, Path(log) if log is not None else None)
    if folder is not None:
        folder.save()
    if file is not None:
        file.unlink(missing_ok=True)
    return done


def _parts(
    pruned: nn.Module | PathLike, plan: PrunePlan | None, folder: PrunedFolder | None
) -> tuple[nn.Module, PrunePlan]:
    """The pruned network and its plan."""
    if folder is not None:
        return folder.model, folder.plan
    if plan is None or not isinstance(pruned, nn.Module):
        raise UsageError(
            "recovery of a module got no plan",
            allowed="plan=..., the plan that was applied to it; or the folder of a pruned network instead of a module",
        )
    return pruned, plan


class _Session:
    """The original on the device, frozen; how outputs are compared; and what is checked."""

    def __init__(
        self,
        pruned: nn.Module,
        original: nn.Module,
        plan: PrunePlan,
        views: Views,
        options: RecoverOptions,
        devices: Devices,
    ) -> None:
        self.pruned, self.plan, self.views, self.options, self.devices = pruned, plan, views, options, devices
        self.teacher = copy.deepcopy(original).to(devices.device).eval().requires_grad_(False)
        self.samples = [devices.place(views(place)).inputs for place in range(SAMPLE_BATCHES)]
        self.held = [devices.place(Batch(args)).inputs for args in views.held()]
        self.targets = [self._answer(self.teacher, args) for args in self.held]
        answers = [self._answer(self.teacher, args) for args in self.samples]
        self.kinds: OutputKinds = kinds_of([*answers, *self.targets])
        _require_answers([*answers, *self.targets])

    def run(self, loop_options: LoopOptions, checkpoint: Path | None, log: Path | None) -> Recovery:
        self.pruned.to(self.devices.device)
        resumed = checkpoint is not None and checkpoint.is_file()
        before = self.agreement(self.pruned)
        started = before if resumed or not self.options.least_squares else self._least_squares(before)
        mimic = Mimic(self.teacher, self._points(), self.kinds, self.options.output_weight)
        optimizer = torch.optim.AdamW(relative_groups(self.pruned, self.options.rate), weight_decay=0.0)
        start = snapshot(self.pruned)
        rows = Log(log)
        try:
            done = fit(
                self.pruned,
                self.views,
                optimizer,
                loop_options,
                hooks=[mimic],
                check=self.agreement,
                checkpoint=checkpoint,
                log=rows,
                devices=self.devices,
            )
        except DivergedError as error:
            after = self.agreement(self.pruned)
            if not after > started:
                restore(self.pruned, start)
                raise
            return Recovery(before, started, after, 0, 0.0, self.views.held_out, error.seen, tuple(rows.rows))
        return Recovery(
            before, started, done.best, done.steps, done.seconds, self.views.held_out, done.stopped, done.rows
        )

    def agreement(self, model: nn.Module) -> float:
        """With the original, on held-out images."""
        with evaluating(model):
            return self.kinds.agreement(self.targets, [self._answer(model, args) for args in self.held])

    def _answer(self, model: nn.Module, args: tuple[Any, ...]) -> Any:
        with torch.no_grad(), self.devices.autocast():
            return model(*args)

    def _least_squares(self, before: float) -> float:
        """Re-fit all layers in closed form, and keep that where it is closer to the original."""
        own = snapshot(self.pruned)
        images = [args for args in (self.views(place).inputs for place in range(-(-128 // self.options.batch)))]
        original = copy.deepcopy(self.teacher).cpu()
        compensate(self.pruned.cpu(), original, self.plan, images, method="lsq")
        self.pruned.to(self.devices.device)
        after = self.agreement(self.pruned)
        if after > before:
            return after
        restore(self.pruned, own)
        return before

    def _points(self) -> Sequence[MatchPoint]:
        example = self.samples[0]
        with bypassed(self.teacher, self.plan.removed_blocks):
            graph = trace(self.teacher, example, layer_norms=self.plan.layer_norms)
        consumers = consumers_of(graph, self.plan, running_means_behind(self.teacher, example))
        own = dict(self.pruned.named_parameters())
        chosen = [name for name in own if any(fnmatch(name, pattern) for pattern in self.options.points)]
        consumers = {name: consumers[name] for name in chosen if name in consumers}
        return points_of(self.teacher, consumers, self.samples, self.kinds, dependence=self.options.dependence)


def _require_answers(answers: Sequence[Any]) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for answer in answers for _, tensor in output_tensors(answer)):
        raise ModelError("the original's outputs hold NaN or infinity", remedy="check its weights and the images")
    if answers_alike(answers):
        raise ImageError(
            "the original gives the same output for all images: there is nothing to learn from them",
            allowed="images like the training data",
            remedy="check the preprocessing (scale, mean, colour order) and the weights",
        )


def _original_shapes(original: nn.Module, plan: PrunePlan) -> dict[str, tuple[int, ...]]:
    with bypassed(original, plan.removed_blocks):
        return dict(shapes_of(original))


def _require_pruned(pruned: nn.Module, plan: PrunePlan) -> None:
    wanted, seen = plan.pruned_shapes(), dict(shapes_of(pruned))
    differing = [name for name in seen if wanted.get(name) != tuple(seen[name])]
    if differing:
        name = differing[0]
        raise ModelError(
            f"the pruned network's {name!r} is {tuple(seen[name])}, the plan leads to {wanted.get(name)}",
            remedy="give the network and the plan that belong together",
        )
