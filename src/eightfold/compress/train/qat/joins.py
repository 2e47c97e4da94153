"""One scale for all that an addition or a concatenation takes, so that integer hardware joins branches as they are.

Additions stand in the code of a model, not in modules. They are found, and their operands rounded, by a mode that sees
torch's functions while the model's forward pass runs; the n-th join of a pass has the n-th scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from eightfold.compress.train.qat.layers import QuantizedLayer
from eightfold.compress.train.qat.quantizers import ActivationQuantizer
from eightfold.compress.types import Args
from eightfold.errors import ModelError
from eightfold.export.verify.module_runs import evaluating

JOINS = "joins"  # name of the module that holds the scales
ADDITIONS = frozenset({torch.add, Tensor.add, Tensor.add_})
CONCATENATIONS = frozenset({torch.cat, torch.concat, torch.concatenate})


class Joins(nn.Module):
    """The scales of a model's joins, in the order in which a forward pass meets them."""

    def __init__(self, quantizers: Mapping[str, ActivationQuantizer]) -> None:
        super().__init__()
        self.quantizers = nn.ModuleDict(dict(quantizers))
        self._place, self._inside = 0, 0
        self._mode: _JoinMode | None = None

    def attach(self, model: nn.Module) -> None:
        """Act in every forward pass of `model` from now on."""
        setattr(model, JOINS, self)
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave, always_call=True)
        for layer in model.modules():
            if isinstance(layer, QuantizedLayer):  # whose own arithmetic adds, too
                layer.register_forward_pre_hook(self._step_in)
                layer.register_forward_hook(self._step_out, always_call=True)

    def joined(self, call: Callable[[Sequence[Tensor]], Tensor], operands: Sequence[Tensor]) -> Tensor:
        """The result of `call` on rounded operands. The range covers the result, too, which has the same scale."""
        if self._inside:
            return call(operands)
        quantizers: list[Any] = list(self.quantizers.values())
        if self._place >= len(quantizers):
            raise ModelError(
                f"the network joins more than {len(quantizers)} times in this pass",
                allowed="the additions and concatenations of the example, in each pass",
                remedy="prepare with an example that takes the same way through the code",
            )
        quantizer = quantizers[self._place]
        self._place += 1
        if isinstance(quantizer, ActivationQuantizer) and quantizer.training and not quantizer.frozen:
            with torch.no_grad():
                seen = [*operands, call(operands)]
                quantizer._observe(torch.stack([each(one) for one in seen for each in (torch.amin, torch.amax)]))
        return call([quantizer(each) for each in operands])

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._place = 0
        self._mode = _JoinMode(self.joined)
        self._mode.__enter__()  # type: ignore[no-untyped-call]

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._mode = None

    def _step_in(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _step_out(self, module: nn.Module, args: Any, output: Any) -> None:
        self._inside -= 1


Join = Callable[[Callable[[Sequence[Tensor]], Tensor], Sequence[Tensor]], Tensor]


class _JoinMode(TorchFunctionMode):
    """Hands joins to a function; everything else runs as it is."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        self._join = join

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = _operands(func, args)
        if not operands:
            return func(*args, **kwargs)
        if func in CONCATENATIONS:
            return self._join(lambda parts: func(list(parts), *args[1:], **kwargs), operands)
        if func is Tensor.add_:  # x += y: the rounding keeps a copy of x for its gradient
            operands[0] = operands[0].clone()
        result = self._join(lambda parts: torch.add(*parts, **kwargs), operands)
        return args[0].copy_(result) if func is Tensor.add_ else result


def _operands(func: Any, args: Sequence[Any]) -> list[Tensor]:
    """Activations that the call joins; none where it is no join."""
    found = list(args[:2]) if func in ADDITIONS else list(args[0]) if func in CONCATENATIONS and args else []
    maps = all(isinstance(each, Tensor) and each.is_floating_point() and each.dim() > 1 for each in found)
    if not maps or len(found) < 2 or (func in ADDITIONS and found[0].shape != found[1].shape):
        return []
    return found


@dataclass(frozen=True)
class FoundJoin:
    """A join of a forward pass: "add" or "cat" with its number; whether an operand was negative."""

    name: str
    negative: bool


def find_joins(
    model: nn.Module, args: Args, see: Callable[[str, Tensor], None] = lambda name, value: None
) -> list[FoundJoin]:
    """The joins of one forward pass of a float model, in order.

    Args:
        see: gets each join's name with each of its operands, and with the result.
    """
    found: list[FoundJoin] = []

    def join(call: Callable[[Sequence[Tensor]], Tensor], operands: Sequence[Tensor]) -> Tensor:
        result = call(operands)
        name = f"{'add' if result.shape == operands[0].shape else 'cat'}{len(found)}"
        found.append(FoundJoin(name, any(bool((each < 0).any()) for each in operands)))
        for each in (*operands, result):
            see(name, each)
        return result

    with evaluating(model), torch.no_grad(), _JoinMode(join):
        model(*args)
    return found


def joins_of(model: nn.Module) -> Joins | None:
    """The scales of a model's joins, where it has any."""
    found = getattr(model, JOINS, None)
    return found if isinstance(found, Joins) else None
