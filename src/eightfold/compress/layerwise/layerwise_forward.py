"""Run a model's forward pass one convolution or linear layer at a time, pausing before each.

`layer_calls` turns a forward pass into an iterator: it yields before every layer whose weight is a tensor of the model,
and goes on when the next one is asked for. Several passes can thus advance in step (the pruned network beside the
original, many batches side by side), and a layer's weights can be changed between two of its pauses, whatever Python
control flow the model has. It costs one forward pass, and activations live no longer than the model itself holds them.
The scales of norms that are asked for count as layers, too: each channel is a convolution group of its own.

Each pass lives on a thread of its own, but only one thread ever runs: a pass holds the baton, or its caller does.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from eightfold.compress.least_squares.patches import Geometry
from eightfold.compress.types import Args, Kwargs

aten = torch.ops.aten


@dataclass(frozen=True)
class PausedCall:
    """A layer about to run. Holds no reference that outlives the pause unless the receiver keeps it."""

    weight: str  # name in the model's state dict
    input: Tensor  # (n, channels, *spatial), or (rows, channels) for linear
    geometry: Geometry
    live_bytes: int  # memory held by activations at this moment; 0 unless asked for


Observer = Callable[[PausedCall, Tensor], None]
"""Sees a call and its output, without bias, right after it ran."""


def layer_calls(
    model: nn.Module,
    args: Args,
    *,
    observe: Observer | None = None,
    measure: bool = False,
    norms: Collection[str] = (),
) -> Iterator[PausedCall]:
    """Pause before each convolution and linear layer of `model(*args)`, in execution order, without gradients.

    Closing the iterator abandons the pass. An exception of the model is raised from the iterator.

    Args:
        model: weights reached through `F.conv*`, `F.linear` and the modules built on them are recognised.
        args: the positional arguments of one forward call.
        observe: called with each call and its output.
        measure: fill `live_bytes` (slower: every operation is accounted).
        norms: scales of layer norms, or group norms, before which to pause as well; their input is normalized already.
    """
    passing = _Pass(model, args, observe, measure, norms)
    passing.start()
    try:
        while (call := passing.until_pause()) is not None:
            yield call
            del call
            passing.resume()
    finally:
        passing.abandon()


class _Abandoned(BaseException):
    """Unwinds an abandoned pass. Not an Exception, so that no model swallows it."""


class _Pass(threading.Thread):
    def __init__(
        self, model: nn.Module, args: Sequence[Any], observe: Observer | None, measure: bool, norms: Collection[str]
    ) -> None:
        super().__init__(daemon=True)
        self._model, self._args = model, args
        live = LiveBytes(model) if measure else None
        self._mode = _LayerMode(_weight_names(model), norms, self._pause, observe, live)
        self._to_caller, self._to_model = threading.Semaphore(0), threading.Semaphore(0)
        self._call: PausedCall | None = None
        self._error: BaseException | None = None
        self._abandoned = False

    def run(self) -> None:
        try:
            with torch.no_grad(), self._mode:
                self._model(*self._args)
        except _Abandoned:
            pass
        except BaseException as error:  # handed to the caller's thread, which raises it
            self._error = error
        finally:
            self._args = ()
            self._to_caller.release()

    def _pause(self, call: PausedCall) -> None:
        self._call = call
        del call
        self._to_caller.release()
        self._to_model.acquire()
        if self._abandoned:
            raise _Abandoned

    def until_pause(self) -> PausedCall | None:
        self._to_caller.acquire()
        if self._error is not None:
            raise self._error
        call, self._call = self._call, None
        return call

    def resume(self) -> None:
        self._to_model.release()

    def abandon(self) -> None:
        self._abandoned = True
        self._to_model.release()
        self.join()


def _weight_names(model: nn.Module) -> Mapping[int, str]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {id(tensor): name for name, tensor in tensors}


class _LayerMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch left the base class untyped
    """Recognises the layers among the ATen calls: convolution, and a matrix product with a transposed parameter."""

    def __init__(
        self,
        names: Mapping[int, str],
        norms: Collection[str],
        pause: Callable[[PausedCall], None],
        observe: Observer | None,
        live: LiveBytes | None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._names, self._norms, self._pause, self._observe, self._live = names, norms, pause, observe, live
        self._transposed: dict[int, tuple[str, Tensor]] = {}

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        call = self._layer(func, args)
        if call is not None:
            self._pause(call)
        output = func(*args, **(kwargs or {}))
        if func is aten.t.default and id(args[0]) in self._names:
            # Keeping the view keeps its id from being given to another tensor.
            self._transposed[id(output)] = (self._names[id(args[0])], output)
        if call is not None and self._observe is not None:
            self._observe(call, _without_bias(func, args, output, call))
        if self._live is not None:
            self._live.made(output)
        return output

    def _layer(self, func: Any, args: Args) -> PausedCall | None:
        live_bytes = self._live.total() if self._live is not None else 0
        if func is aten.convolution.default and id(args[1]) in self._names:
            return PausedCall(self._names[id(args[1])], args[0], _geometry(args), live_bytes)
        if func in _NORMALIZED:
            return self._norm(func, args, live_bytes)
        operands = _LINEAR.get(func)
        if operands is None:
            return None
        x, weight = args[operands[0]], args[operands[1]]
        if id(weight) in self._transposed:
            return PausedCall(self._transposed[id(weight)][0], x, Geometry(), live_bytes)
        if id(weight) in self._names:  # stored [inputs, outputs], as ONNX does
            return PausedCall(self._names[id(weight)], x, Geometry(transposed=True), live_bytes)
        return None

    def _norm(self, func: Any, args: Args, live_bytes: int) -> PausedCall | None:
        weight = args[_SCALE[func]]
        name = self._names.get(id(weight), "")
        if name not in self._norms:
            return None
        return PausedCall(name, _NORMALIZED[func](args), Geometry(groups=weight.numel()), live_bytes)


def _layer_normalized(args: Args) -> Tensor:
    x, shape, _, _, epsilon = args[:5]
    normalized: Tensor = aten.native_layer_norm(x, shape, None, None, epsilon)[0]
    return normalized.reshape(-1, shape[-1])


def _group_normalized(args: Args) -> Tensor:
    x, _, _, batch, channels, positions, groups, epsilon = args[:8]
    normalized: Tensor = aten.native_group_norm(x, None, None, batch, channels, positions, groups, epsilon)[0]
    return normalized.movedim(1, -1).reshape(-1, channels)


# Norms as rows (positions, channels) before scale and shift, and which argument is the scale.
_NORMALIZED: Mapping[Any, Callable[[Args], Tensor]] = {
    aten.native_layer_norm.default: _layer_normalized,
    aten.native_group_norm.default: _group_normalized,
}
_SCALE = {aten.native_layer_norm.default: 2, aten.native_group_norm.default: 1}
_LINEAR = {aten.mm.default: (0, 1), aten.addmm.default: (1, 2)}  # which arguments are the input and the weight
_BIAS = {aten.addmm.default: 0, aten.convolution.default: 2}


def _geometry(args: Args) -> Geometry:
    _, weight, _, stride, padding, dilation, transposed, _, groups = args
    spatial = weight.dim() - 2

    def per_axis(value: Sequence[int]) -> tuple[int, ...]:
        return tuple(value) * spatial if len(value) == 1 else tuple(value)

    return Geometry(
        tuple(weight.shape[2:]), per_axis(stride), per_axis(padding), per_axis(dilation), transposed, groups
    )


def _without_bias(func: Any, args: Args, output: Tensor, call: PausedCall) -> Tensor:
    if func in _NORMALIZED:
        scale: Tensor = args[_SCALE[func]]
        return call.input * scale
    position = _BIAS.get(func)
    bias: Tensor | None = None if position is None else args[position]
    return output if bias is None else output - bias.reshape(-1, *[1] * (output.dim() - 2))


class LiveBytes:
    """Memory of the tensors that a forward pass has made and still holds; parameters and buffers do not count."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self._tensors: list[weakref.ref[Tensor]] = []

    def made(self, output: object) -> None:
        """Watch the tensors of an output."""
        parts = output if isinstance(output, tuple | list) else [output]
        self._tensors += [weakref.ref(part) for part in parts if isinstance(part, Tensor)]

    def total(self) -> int:
        """Bytes of the watched tensors that are still alive, shared storage counted once."""
        alive = [(reference, tensor) for reference in self._tensors if (tensor := reference()) is not None]
        self._tensors = [reference for reference, _ in alive]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for _, tensor in alive}
        return sum(size for pointer, size in storages.items() if pointer not in self._own)
