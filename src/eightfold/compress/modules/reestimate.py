"""Re-estimates batch norm statistics after pruning, from images without labels (Li et al. 2020, arXiv:2007.02491)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from eightfold.compress.modules.batches import batches_of
from eightfold.compress.types import ImageBatches
from eightfold.errors import ImageError
from eightfold.export.verify.module_runs import evaluating


def reestimate_norms(model: nn.Module, images: ImageBatches) -> int:
    """Replace the running mean and variance of every batch norm by those over images; weights stay.

    All other modules are in evaluation mode meanwhile, so that dropout and stochastic depth are off.

    Args:
        images: one tensor [n, channels, height, width], or batches of model inputs. Some hundred images do; batches of
            fewer than some ten images make the variance noisy.

    Returns:
        The number of batch norms.

    Raises:
        ImageError: no images.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    batches = batches_of(images)
    if norms and not batches:
        raise ImageError("no images to estimate batch norms from", allowed="at least one batch")
    _run(model, norms, batches)
    return len(norms)


def _run(model: nn.Module, norms: list[Any], batches: Iterable[tuple[Any, ...]]) -> None:
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        try:
            for args in batches:
                model(*args)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
