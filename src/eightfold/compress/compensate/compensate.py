"""Compensation: fold what the removed channels contributed into the layers that used them. No labels, no training.

Three methods, from cheap to strong:

- "bn_beta": a removed channel is taken for the constant that it shows once its norm scale is zero, activation(beta);
  the constant times the consumer's weights goes to the consumer's bias or running mean. Looks at no pixel of the
  images. Exact away from zero padding.
- "mean": the same with each channel's mean over the images.
- "lsq": layer by layer in execution order, the weights that remain are fitted so that, on inputs from the network
  pruned and fitted so far, they give what the original network's layer gave (least squares; He et al. 2017,
  arXiv:1707.06168, did this for single layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from eightfold.compress.compensate.constants import constants_from_beta, fold_constants, mean_inputs
from eightfold.compress.compensate.consumers import consumers_of
from eightfold.compress.compensate.fitting import fit_layers
from eightfold.compress.modules.batches import batches_of
from eightfold.compress.modules.norms import running_means_behind
from eightfold.compress.plan.plan import PrunePlan
from eightfold.compress.surgery.blocks import bypassed
from eightfold.compress.trace.groups import ChannelGraph
from eightfold.compress.trace.trace import trace
from eightfold.compress.types import ImageBatches
from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.verify.module_runs import evaluating

METHODS = ("none", "bn_beta", "mean", "lsq")
# Constants of the original's norms are not those of norms over fewer channels: measured, they cost accuracy.
_WITH_LAYER_NORMS = ("none", "lsq")


@dataclass(frozen=True)
class CompensationReport:
    """Changes made by compensation: layers fitted (lsq) or whose offset was folded, and those that can take no
    offset."""

    method: str
    changed: tuple[str, ...]
    without_sink: tuple[str, ...]

    def describe(self) -> str:
        """Text for a person: the number of changed layers, and the layers that can take no offset."""
        lines = [f"compensation {self.method}: {len(self.changed)} layers changed"]
        lines += [f"  no bias and no norm of its own to take an offset: {name}" for name in self.without_sink]
        return "\n".join(lines)


def require_method(method: str, layer_norms: bool) -> None:
    """Raises UnknownNameError for a method that does not exist, UsageError for one that leaves changed layer norms as
    they are: a network that nothing trains afterwards loses far more by them than by other channels."""
    if method not in METHODS:
        raise UnknownNameError.of("compensation", method, METHODS)
    if layer_norms and method != "lsq":
        raise _no_use(method, ("lsq",))


def _no_use(method: str, allowed: Sequence[str]) -> UsageError:
    return UsageError(
        f"compensation {method!r} with channels below layer norms pruned",
        allowed=" or ".join(allowed),
        remedy="take lsq with images, which re-fits the norms; to train instead, use plan_pruning and apply_plan",
    )


def compensate(
    pruned: nn.Module,
    original: nn.Module,
    plan: PrunePlan,
    images: ImageBatches,
    *,
    method: str = "lsq",
    graph: ChannelGraph | None = None,
    batch: int = 8,
    memory_mb: int = 224,
    seed: int = 0,
) -> CompensationReport:
    """Compensate `pruned` in place for what `plan` took from `original`. Both run in eval mode; modes are restored.

    Args:
        pruned: a copy of `original` after `apply_plan(copy, plan)`.
        original: the network before pruning; unchanged.
        images: model-ready inputs [n, channels, height, width], or an iterable of the model's inputs: a tensor, or a
            tuple of positional arguments, for each forward call. 256 images are plenty; labels are not needed.
            "bn_beta" looks at no values: the example inputs of the trace do.
        method: "none", "bn_beta", "mean" or "lsq", from cheap to strong.
        graph: of `original` (without the blocks that the plan removes), if at hand; traced otherwise.
        batch: images per forward pass, when `images` is one tensor. Small ones fill `memory_mb` best.
        memory_mb: what activations may take in "lsq"; a smaller budget is slower, and hardly worse.
        seed: chooses the image positions that "lsq" looks at.

    Raises:
        UnknownNameError: no such method.
        UsageError: `images` is empty, or the method is of no use to a plan with `layer_norms`.
        ModelError: the two networks do not run the same layers on the same images.
    """
    if method not in METHODS:
        raise UnknownNameError.of("compensation", method, METHODS)
    if plan.layer_norms and method not in _WITH_LAYER_NORMS:
        raise _no_use(method, _WITH_LAYER_NORMS)
    batches = batches_of(images, batch)
    if not batches:
        raise UsageError("compensation got no images", allowed="at least one batch", remedy="pass some 256 images")
    if method == "none":
        return CompensationReport(method, (), ())
    if graph is None:
        with bypassed(original, plan.removed_blocks):
            graph = trace(original, batches[0], layer_norms=plan.layer_norms)
    with evaluating(pruned, original):
        sites = consumers_of(graph, plan, running_means_behind(original, batches[0]))
        if method == "lsq":
            changed = fit_layers(pruned, original, sites, batches, memory_bytes=memory_mb << 20, seed=seed)
        else:
            constants = (
                mean_inputs(original, batches) if method == "mean" else constants_from_beta(original, plan, batches[0])
            )
            layers = {name: site for name, site in sites.items() if not site.norm}
            changed = fold_constants(pruned, original, layers, constants)
    without_sink = (name for name, site in sites.items() if site.sink is None and not site.norm)
    return CompensationReport(method, changed, tuple(without_sink))
