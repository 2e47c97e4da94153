"""Penalties on channels: L1 on batch norm scales, and the group lasso over all weights of a coupled channel.

A penalty acts once per optimizer step: its subgradient joins gradients that are complete and unscaled, or a proximal
step shrinks parameters after the optimizer's. Neither accumulated batches nor a gradient scaler change its strength.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from eightfold.compress.criteria.evidence import Evidence
from eightfold.compress.trace.groups import Group
from eightfold.compress.trace.trace import trace
from eightfold.compress.train.sparsity.proximal import Stepped, step_sizes
from eightfold.compress.train.sparsity.scales import LayerSet, Scales, batch_norm_scales, penalized_scales, shifts_of
from eightfold.compress.train.sparsity.slices import add_to, mean_step, slices_of, squares_and_counts
from eightfold.compress.train.sparsity.strength import Strength
from eightfold.compress.types import ExampleInputs
from eightfold.errors import ModelError, UsageError

TINY = 1e-12


class Penalty(ABC):
    """A penalty on some parameters of a model.

    Attributes:
        has_proximal: whether `shrink` is there.
    """

    has_proximal: ClassVar[bool] = False

    @abstractmethod
    def parameters(self) -> Iterable[nn.Parameter]:
        """The parameters that it looks at."""

    @abstractmethod
    def add_gradients(self, progress: float, factor: float = 1.0) -> None:
        """Add the subgradient, times `factor`, to the parameters' gradients; those without one get it."""

    @abstractmethod
    def magnitudes(self) -> dict[str, Tensor]:
        """Name of each layer or group -> size of each of its channels, at least 0, [channels]."""

    def before_step(self, progress: float) -> None:
        """Called before an optimizer's step that `shrink` follows."""
        raise self._no_proximal()

    def shrink(self, progress: float, optimizer: Stepped) -> None:
        """The proximal step, after the optimizer's own."""
        raise self._no_proximal()

    def _no_proximal(self) -> UsageError:
        return UsageError(f"a proximal step of {type(self).__name__}, which has none", allowed="subgradient")


class ScalePenalty(Penalty):
    """s * sum |gamma| (Liu et al. 2017, arXiv:1708.06519, section 3). Convolutions are left alone.

    Args:
        scales: by name.
        strength: over the run.
        shifts: of the same batch norms. After the penalty's release, channels whose scale is zero get a shift of zero
            as well: they give nothing at all behind activations that keep zero, and removing them changes nothing.
    """

    has_proximal = True

    def __init__(self, scales: Scales, strength: Strength, shifts: Mapping[str, nn.Parameter] | None = None) -> None:
        self._scales, self._strength, self._shifts = scales, strength, dict(shifts or {})
        self._dead: dict[str, Tensor] = {}

    def parameters(self) -> Iterable[nn.Parameter]:
        return self._scales.values()

    @torch.no_grad()
    def add_gradients(self, progress: float, factor: float = 1.0) -> None:
        for scale, own in zip(self._scales.values(), self._strengths(progress), strict=True):
            add_to(scale, factor * own * scale.sign())

    def before_step(self, progress: float) -> None:
        """Dead channels are those at zero, so that a resumed run knows them."""
        released = self._strength.released(progress)
        self._dead = {name: scale.detach() == 0 for name, scale in self._scales.items()} if released else {}

    @torch.no_grad()
    def shrink(self, progress: float, optimizer: Stepped) -> None:
        """Soft thresholding; the largest scale of a layer at most halves, so that no layer dies in one step."""
        for name, dead in self._dead.items():
            for each in (self._scales[name], self._shifts.get(name)):
                if each is not None:
                    each.masked_fill_(dead, 0.0)
        if self._dead:
            return
        sizes = step_sizes(optimizer, self._scales.values())
        for scale, own in zip(self._scales.values(), self._strengths(progress), strict=True):
            if id(scale) in sizes:
                size = scale.abs()
                left = (size - own * sizes[id(scale)]).clamp(min=0)
                top = size.argmax()
                left[top] = torch.maximum(left[top], 0.5 * size[top])
                scale.copy_(scale.sign() * left)

    def _strengths(self, progress: float) -> tuple[Tensor, ...]:
        scales = [scale.detach().abs() for scale in self._scales.values()]
        return torch.split(self._strength.of(torch.cat(scales), progress), [len(scale) for scale in scales])

    def magnitudes(self) -> dict[str, Tensor]:
        return {name: scale.detach().abs() for name, scale in self._scales.items()}


class GroupLasso(Penalty):
    """s * sum over coupled channels of sqrt(n) * norm of its n weights (Yuan and Lin 2006): those that make the
    channel, those that read it, and its norm scales. The factor sqrt(n) gives each weight a pull of about s."""

    def __init__(self, model: nn.Module, groups: Iterable[Group], strength: Strength) -> None:
        tensors = dict(model.named_parameters())
        self._strength = strength
        self._groups = {group.id: (group.width, slices_of(group, tensors)) for group in groups}

    def parameters(self) -> Iterable[nn.Parameter]:
        return {id(part.parameter): part.parameter for _, parts in self._groups.values() for part in parts}.values()

    @torch.no_grad()
    def add_gradients(self, progress: float, factor: float = 1.0) -> None:
        moments = {name: squares_and_counts(width, parts) for name, (width, parts) in self._groups.items()}
        sizes = [(squares / counts).sqrt() for squares, counts in moments.values()]
        strengths = torch.split(self._strength.of(torch.cat(sizes), progress), [len(size) for size in sizes])
        for (_, parts), size, own in zip(self._groups.values(), sizes, strengths, strict=True):
            pull = factor * own / size.clamp(min=TINY)
            for part in parts:
                rows = part.rows()
                shape = [1] * rows.dim()
                shape[part.dim] = -1
                change = torch.zeros_like(part.parameter)
                add_to(
                    part.parameter,
                    change.index_add_(part.dim, part.positions, rows * pull[part.channels].reshape(shape)),
                )

    def magnitudes(self) -> dict[str, Tensor]:
        """Root mean square weight of each coupled channel."""
        moments = {name: squares_and_counts(width, parts) for name, (width, parts) in self._groups.items()}
        return {name: (squares / counts).sqrt() for name, (squares, counts) in moments.items()}


class CoupledScales(GroupLasso):
    """s * sum over coupled channels of sqrt(n) * norm of its n batch norm scales: those of a residual stream die in all
    of its layers at once, so that the channel can go. The subgradient is the group lasso's; the proximal step is exact,
    because each scale belongs to one channel.

    Args:
        groups: those whose batch norms are penalized.
    """

    has_proximal = True

    def __init__(self, model: nn.Module, groups: Iterable[Group], strength: Strength) -> None:
        super().__init__(model, groups, strength)
        scales = batch_norm_scales(model)
        shifts = shifts_of(model, scales)
        self._shifts = {id(scale): shifts[name] for name, scale in scales.items()}
        for name, (width, parts) in list(self._groups.items()):
            kept = [part for part in parts if id(part.parameter) in self._shifts]
            self._groups[name] = width, kept
            if not kept:
                del self._groups[name]
        self._dead: dict[str, Tensor] = {}
        if not self._groups:
            raise ModelError("no batch norm scales in the groups that can be pruned", remedy="choose the group lasso")

    def before_step(self, progress: float) -> None:
        released = self._strength.released(progress)
        self._dead = {name: size == 0 for name, size in self.magnitudes().items()} if released else {}

    @torch.no_grad()
    def shrink(self, progress: float, optimizer: Stepped) -> None:
        """Block soft thresholding; the largest channel of a group at most halves."""
        for name, dead in self._dead.items():
            self._scale(name, (~dead).float(), shifts=True)
        if self._dead:
            return
        steps, sizes = step_sizes(optimizer, self.parameters()), self.magnitudes()
        pool = self._strength.of(torch.cat([*sizes.values()]), progress)
        strengths = torch.split(pool, [len(size) for size in sizes.values()])
        for (name, size), own in zip(sizes.items(), strengths, strict=True):
            step = mean_step(steps, self._groups[name][1])
            left = (1 - step * own / size.clamp(min=TINY)).clamp(min=0)
            left[size.argmax()] = left[size.argmax()].clamp(min=0.5)
            self._scale(name, left)

    def _scale(self, name: str, factors: Tensor, *, shifts: bool = False) -> None:
        """Multiply the scales of each channel of a group, and the shifts as well."""
        for part in self._groups[name][1]:
            own = factors[part.channels]
            for each in (part.parameter, self._shifts[id(part.parameter)]) if shifts else (part.parameter,):
                each[part.positions] *= own.to(each.dtype)


PenaltyMaker = Callable[[nn.Module, Strength, LayerSet, ExampleInputs | None], Penalty]


def _scale_penalty(
    model: nn.Module, strength: Strength, layers: LayerSet, example_inputs: ExampleInputs | None
) -> Penalty:
    scales = penalized_scales(model, layers, example_inputs)
    return ScalePenalty(scales, strength, shifts_of(model, scales))


def _group_lasso(
    model: nn.Module, strength: Strength, layers: LayerSet, example_inputs: ExampleInputs | None
) -> Penalty:
    if example_inputs is None:
        raise UsageError("the penalty 'group-lasso' without example inputs", allowed="example_inputs=...")
    graph = trace(model, example_inputs)
    evidence = Evidence(model, graph)
    groups = [group for group in graph.free if evidence.weights(group, "producer", "consumer")]
    if not groups:
        raise ModelError("no channels that can be pruned, so there is nothing to make sparse")
    return GroupLasso(model, groups, strength)


def _coupled_scales(
    model: nn.Module, strength: Strength, layers: LayerSet, example_inputs: ExampleInputs | None
) -> Penalty:
    if example_inputs is None:
        raise UsageError("the penalty 'coupled-scales' without example inputs", allowed="example_inputs=...")
    return CoupledScales(model, trace(model, example_inputs).free, strength)


PENALTIES: dict[str, PenaltyMaker] = {
    "scales": _scale_penalty,
    "coupled-scales": _coupled_scales,
    "group-lasso": _group_lasso,
}


def register_penalty(name: str, make: PenaltyMaker) -> None:
    """Make a penalty known to `sparsify` and to recipes. A name that is taken is refused."""
    if name in PENALTIES:
        raise UsageError(f"the penalty {name!r} exists", allowed="a new name", remedy="choose another name")
    PENALTIES[name] = make
