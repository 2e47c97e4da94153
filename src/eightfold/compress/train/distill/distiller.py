"""A teacher beside a student: losses of outputs and features, with adapters where widths differ.

The module holds what trains beside the student: 1x1 adapters from its widths to the teacher's, and the generators of
masked generative distillation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from eightfold.compress.train.distill.features import feature_pairs, map_shapes, recorded, require_pairs
from eightfold.compress.train.distill.losses import (
    ANY_WIDTH,
    LOSSES,
    OF_OUTPUTS,
    TEMPERATURE,
    distillation_loss,
    loss_named,
    paired_tensors,
)
from eightfold.compress.train.distill.masked import MASKED, MaskedGeneration
from eightfold.compress.types import Args, ExampleInputs
from eightfold.errors import UnknownNameError, UsageError
from eightfold.export.verify.module_runs import evaluating


@dataclass(frozen=True)
class DistillOptions:
    """
    Attributes:
        weights: loss -> weight: "logits", "cwd", "attention", "features", "mgd", or a registered one.
        pairs: student's module -> teacher's module, for losses of features; None: for each map size, the last module
            that both networks have.
        temperature: of softmaxes.
    """

    weights: Mapping[str, float]
    pairs: Mapping[str, str] | None = None
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in (*LOSSES, MASKED):
                raise UnknownNameError.of("distillation loss", name, [*LOSSES, MASKED])
            if not weight > 0:
                raise UsageError(f"a weight of {weight:g} for the distillation loss {name!r}", allowed="above 0")
        if not self.weights:
            raise UsageError("distillation without a loss", allowed=", ".join([*LOSSES, MASKED]))


class Distiller(nn.Module):
    """Losses between a student and its teacher, for any training loop.

    Args:
        student: the network that trains; it is not part of this module's parameters.
        teacher: run in evaluation mode without gradients; left as it is.
        example_inputs: what both are called with.

    Raises:
        ModelError: a teacher of another task; no pair of features.

    Example:
        >>> import torch
        >>> student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> x = torch.rand(2, 4)
        >>> distiller = Distiller(student, teacher, x, DistillOptions({"logits": 1.0}))
        >>> with distiller.watching():
        ...     outputs = student(x)
        >>> sorted(distiller((x,), outputs))
        ['logits']
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, example_inputs: ExampleInputs, options: DistillOptions
    ) -> None:
        super().__init__()
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        self._networks = (student, teacher)  # in a tuple, so that they are no submodules
        self._options, self._seen = options, dict[str, Tensor]()
        self._require_one_task(args)
        self.pairs = self._pairs(args)
        self.adapters, self.generators = nn.ModuleDict(), nn.ModuleDict()
        self._add_modules(args)

    def _require_one_task(self, args: tuple[Any, ...]) -> None:
        if OF_OUTPUTS.intersection(self._options.weights):
            student, teacher = self._networks
            with evaluating(student), evaluating(teacher), torch.no_grad():
                paired_tensors(student(*args), teacher(*args))

    def _pairs(self, args: tuple[Any, ...]) -> Mapping[str, str]:
        if OF_OUTPUTS.issuperset(self._options.weights):
            return {}
        self._shapes = map_shapes(self._networks[0], args), map_shapes(self._networks[1], args)
        if self._options.pairs is None:
            return feature_pairs(*self._shapes)
        require_pairs(self._options.pairs, *self._shapes)
        return self._options.pairs

    def _add_modules(self, args: tuple[Any, ...]) -> None:
        widths = set(self._options.weights) - OF_OUTPUTS - ANY_WIDTH
        for place, (own, theirs) in enumerate(self.pairs.items()):
            inner, outer = self._shapes[0][own][1], self._shapes[1][theirs][1]
            if widths and inner != outer:
                self.adapters[str(place)] = nn.Conv2d(inner, outer, 1)
            if MASKED in self._options.weights:
                self.generators[str(place)] = MaskedGeneration(outer)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record the student's features of the forward pass inside."""
        with recorded(self._networks[0], list(self.pairs)) as found:
            yield
        self._seen = found

    def forward(self, inputs: Args, outputs: object) -> dict[str, Tensor]:
        """Weighted losses by name, for the forward pass that `watching` recorded.

        Args:
            inputs: positional arguments of that pass.
            outputs: what the student gave.
        """
        teacher = self._networks[1]
        with evaluating(teacher), torch.no_grad(), recorded(teacher, list(self.pairs.values())) as wanted:
            answer = teacher(*inputs)
        seen, self._seen = self._seen, {}
        return {name: weight * self._loss(name, outputs, answer, seen, wanted) for name, weight in self._weights()}

    def _weights(self) -> list[tuple[str, float]]:
        return list(self._options.weights.items())

    def _loss(
        self, name: str, outputs: Any, answer: Any, seen: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
    ) -> Tensor:
        temperature = self._options.temperature
        if name in OF_OUTPUTS:
            return distillation_loss(outputs, answer, method=name, temperature=temperature)
        terms = []
        for place, (own, theirs) in enumerate(self.pairs.items()):
            mine, target = seen[own], wanted[theirs]
            if name not in ANY_WIDTH and str(place) in self.adapters:
                mine = self.adapters[str(place)](mine)
            if name == MASKED:
                terms.append(self.generators[str(place)](mine, target))
            else:
                terms.append(loss_named(name)(mine, target, temperature))
        return torch.stack(terms).mean()
