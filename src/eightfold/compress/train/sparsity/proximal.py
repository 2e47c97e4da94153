"""Step sizes of optimizers, for proximal steps: exact shrinkage after an optimizer's step, in place of a subgradient.

A subgradient lets scales swing around zero by about the learning rate times s; soft thresholding makes them exactly
zero (ISTA: Daubechies et al. 2004, arXiv:math/0307152). The threshold is s times the optimizer's step size in the
steady state, so that a run ends where the penalized loss has its minimum: a momentum m multiplies it by 1/(1-m), and an
adaptive optimizer divides it by its own denominator (Yun et al. 2021, arXiv:2006.07065).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Update = Literal["proximal", "subgradient"]
UPDATES: tuple[Update, ...] = ("proximal", "subgradient")


class Stepped(Protocol):
    """The parts of an optimizer that step sizes come from; accelerate's wrapper has them too."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    @property
    def state(self) -> Any: ...


def step_sizes(optimizer: Stepped, parameters: Iterable[nn.Parameter]) -> dict[int, float | Tensor]:
    """`id` of each parameter that the optimizer holds -> how far a constant gradient of 1 moves it in each step.

    A number, or for adaptive optimizers a tensor in the parameter's shape.
    """
    wanted = {id(parameter) for parameter in parameters}
    return {
        id(parameter): _step_size(group, optimizer.state.get(parameter, {}))
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in wanted
    }


def _step_size(group: Mapping[str, Any], state: Mapping[str, Any]) -> float | Tensor:
    rate = float(group["lr"])
    if "exp_avg_sq" in state:  # Adam and its kin
        corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
        denominator: Tensor = corrected.sqrt() + group["eps"]
        return rate / denominator
    momentum = group.get("momentum") or 0.0
    return rate * (1 - group.get("dampening", 0.0)) / (1 - momentum) if momentum else rate
