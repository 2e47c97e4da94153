"""Accesses the tensors of a module by the names that plans use, and runs it with observers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode

from eightfold.compress.types import Args, ExampleInputs, Kwargs
from eightfold.errors import TraceError
from eightfold.export.verify.module_runs import require_module


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, and buffers of numbers or masks, by their first name; tied tensors appear once."""
    tensors = all_tensors(model)
    return {name: t for name, t in tensors.items() if isinstance(t, nn.Parameter) or _may_hold_channels(t)}


def _may_hold_channels(buffer: torch.Tensor) -> bool:
    """Whole numbers name positions, or count: they are no channels."""
    return buffer.is_floating_point() or buffer.dtype == torch.bool


def all_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters, then buffers, by their first name, in one walk over the modules; tied tensors appear once."""
    parameters: dict[int, tuple[str, torch.Tensor]] = {}
    buffers: dict[int, tuple[str, torch.Tensor]] = {}
    for path, module in model.named_modules():
        for held, found in ((module._parameters, parameters), (module._buffers, buffers)):
            for name, tensor in held.items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{path}.{name}" if path else name, tensor))
    return dict([*parameters.values(), *buffers.values()])


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, torch.compile and the like, whose names carry no prefix.

    Raises:
        TraceError: a TorchScript module: its code no longer runs as Python.
        ModelError: no module.
    """
    require_module(model)
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise TraceError(
            "the model is a TorchScript module",
            allowed="an ordinary torch.nn.Module",
            remedy="prune the Python model that it was made from, and script the result",
        )
    return model


def module_code_name(module: nn.Module) -> str:
    """Name of the code that a module runs: its `code` attribute, or its class."""
    return str(getattr(module, "code", None) or type(module).__qualname__)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter and buffer, by its first name; tied tensors appear once."""
    return {name: tuple(tensor.shape) for name, tensor in all_tensors(model).items()}


def call_model(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """`model` on its inputs: a dictionary is keyword arguments, a tuple positional ones.

    A list of nothing but tuples and dictionaries is several calls, one after the other; any other list is one argument.
    """
    if is_several_calls(example_inputs):
        return [call_model(model, call) for call in example_inputs]
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    return model(*example_inputs) if isinstance(example_inputs, tuple) else model(example_inputs)


def is_several_calls(example_inputs: ExampleInputs) -> TypeGuard[list[Args | Kwargs]]:
    """Tells a list of calls from a list that is one argument, such as the images of a torchvision detector."""
    return (
        isinstance(example_inputs, list)
        and bool(example_inputs)
        and all(isinstance(call, tuple | Mapping) for call in example_inputs)
    )


@contextlib.contextmanager
def module_paths(model: nn.Module, *, keep_on_error: bool = False) -> Iterator[list[str]]:
    """Yield a stack whose last entry is the path of the module that is running.

    With `keep_on_error`, a module that raises stays on the stack, so that the last entry tells who it was.
    """
    stack = [""]
    names = {id(module): name for name, module in model.named_modules()}

    def enter(module: nn.Module, _: Any) -> None:
        stack.append(names.get(id(module), stack[-1]))

    def leave(*_: Any) -> None:
        stack.pop()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=not keep_on_error),
    ]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put modes, buffers and the random state back as they were."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for buffer, value in buffers:
                    if not torch.equal(buffer, value):
                        buffer.copy_(value)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Switch off the fused encoder kernel, which hides its operators, and let attention run as one operator.

    A layout that the fused attention does not take would be split into products, which hide where the scale came from.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _WholeAttention():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _WholeAttention(TorchFunctionMode):
    """Gives attention its operands in the layout that the fused operator takes."""

    def __torch_function__(
        self, func: OpOverload, types: Sequence[type], args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            args = tuple(arg.contiguous() if isinstance(arg, torch.Tensor) else arg for arg in args)
        return func(*args, **(kwargs or {}))
