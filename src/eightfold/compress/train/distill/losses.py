"""Distillation losses of two tensors, and the registry of them.

All are means over the batch, in float32, and give the teacher no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from eightfold.errors import ModelError, UnknownNameError, UsageError
from eightfold.export.verify.module_runs import output_tensors

PairLoss = Callable[[Tensor, Tensor, float], Tensor]
TEMPERATURE = 4.0


def logits(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """T^2 * KL(teacher || student) of softmax(logits / T) over dimension 1 (Hinton et al. 2015, arXiv:1503.02531).

    Args:
        student, teacher: [batch, classes, ...]; positions of further dimensions are averaged.
    """
    wanted = F.log_softmax(teacher.detach().float() / temperature, 1)
    seen = F.log_softmax(student.float() / temperature, 1)
    return temperature**2 * F.kl_div(seen, wanted, log_target=True, reduction="none").sum(1).mean()


def channel_wise(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """T^2 / channels * sum of KL of each channel's softmax over positions (Shu et al. 2021, arXiv:2011.13256).

    Args:
        student, teacher: maps [batch, channels, ...] of one shape.
    """
    wanted = F.log_softmax(teacher.detach().float().flatten(2) / temperature, 2)
    seen = F.log_softmax(student.float().flatten(2) / temperature, 2)
    return temperature**2 * F.kl_div(seen, wanted, log_target=True, reduction="none").sum(2).mean()


def attention_loss(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean squared difference of attention maps: the mean over channels of squares, normalized to length 1 (Zagoruyko
    and Komodakis 2017, arXiv:1612.03928). The numbers of channels may differ; the temperature is not used.

    Args:
        student, teacher: maps [batch, channels, ...] with the same positions.
    """
    return (attention_map(student.float()) - attention_map(teacher.detach().float())).square().mean()


def attention_map(features: Tensor) -> Tensor:
    """[batch, positions], of length 1."""
    return F.normalize(features.square().mean(1).flatten(1), dim=1)


def features(student: Tensor, teacher: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean squared difference in units of each teacher channel's variance (Romero et al. 2015, arXiv:1412.6550, with
    the scale taken out). The temperature is not used."""
    wanted, seen = teacher.detach().float(), student.float()
    dims = [0, *range(2, wanted.dim())]
    variance = wanted.var(dims, keepdim=True, unbiased=False)
    return ((seen - wanted).square() / (variance + 0.01 * variance.mean() + 1e-12)).mean()


LOSSES: dict[str, PairLoss] = {
    "logits": logits,
    "cwd": channel_wise,
    "attention": attention_loss,
    "features": features,
}
OF_OUTPUTS = frozenset({"logits"})  # the others compare features
ANY_WIDTH = frozenset({"attention"})  # no adapter is needed where numbers of channels differ


def register_distillation(name: str, loss: PairLoss) -> None:
    """Make a loss of (student's features, teacher's features, temperature) known. A name that is taken is refused."""
    if name in LOSSES:
        raise UsageError(f"the distillation loss {name!r} exists", allowed="a new name", remedy="choose another name")
    LOSSES[name] = loss


def loss_named(name: str) -> PairLoss:
    """Raises UnknownNameError."""
    if name not in LOSSES:
        raise UnknownNameError.of("distillation loss", name, LOSSES)
    return LOSSES[name]


def distillation_loss(
    student: object, teacher: object, *, method: str = "logits", temperature: float = TEMPERATURE
) -> Tensor:
    """The distillation loss between two networks' outputs or features, for any training loop.

    Args:
        student, teacher: tensors, or lists, tuples or dictionaries of tensors in the same order.
        method: "logits" (softmax over dimension 1), "cwd", "attention" or "features"; see their functions.
        temperature: of softmaxes.

    Returns:
        A scalar: the mean over pairs of tensors. The teacher gets no gradient.

    Raises:
        UnknownNameError: no such method.
        ModelError: outputs that do not pair: the teacher is of another task.

    Example:
        >>> import torch, eightfold as ef
        >>> answers = torch.randn(4, 10)
        >>> float(ef.distillation_loss(answers, answers))
        0.0
    """
    loss, pairs = loss_named(method), paired_tensors(student, teacher, any_width=method in ANY_WIDTH)
    return torch.stack([loss(own, theirs, temperature) for own, theirs in pairs]).mean()


def paired_tensors(student: object, teacher: object, *, any_width: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Tensors of both outputs in order. Raises ModelError where their number or shapes differ."""
    own = [tensor for _, tensor in output_tensors(student) if tensor.is_floating_point()]
    theirs = [tensor for _, tensor in output_tensors(teacher) if tensor.is_floating_point()]
    shapes = [_shape(tensor, any_width) for tensor in own], [_shape(tensor, any_width) for tensor in theirs]
    if shapes[0] != shapes[1] or not own:
        raise ModelError(
            f"the student gives {_shown(own)} and the teacher {_shown(theirs)}",
            allowed="a teacher of the same task, whose outputs have the student's shapes",
            remedy="give the network that the student was pruned from, or one with the same classes and head",
        )
    return list(zip(own, theirs, strict=True))


def _shape(tensor: Tensor, any_width: bool) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:]) if any_width else tuple(tensor.shape)


def _shown(tensors: list[Tensor]) -> str:
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:4]) or "no tensor"
