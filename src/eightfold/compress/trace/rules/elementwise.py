"""Elementwise operators: labels along the same broadcast dimension are coupled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from eightfold.compress.trace.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import (
    Call,
    follows,
    has_offset,
    is_uniform,
    note_spread,
    rule,
    set_offset,
    set_uniform,
)


@rule(
    "_conj", "_prelu_kernel", "_to_copy", "abs", "add", "addcdiv", "addcmul", "alias", "bernoulli",
    "bitwise_not", "celu", "clamp", "clamp_max", "clamp_min", "clone", "constant", "contiguous", "detach",
    "div", "dropout", "elu", "exp", "fake_quantize", "gelu", "glu_jvp", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "isinf", "isnan", "leaky_relu", "lerp", "lift", "lift_fresh", "log",
    "log_sigmoid_forward", "logical_not", "logit", "masked_fill", "maximum", "minimum", "mish", "mul",
    "nan_to_num", "native_dropout", "neg", "pow", "prelu", "relu", "relu6", "requires_grad", "resolve_conj",
    "resolve_neg", "rrelu_with_noise", "rsqrt", "rsub", "selu", "sigmoid", "silu", "softplus", "softshrink",
    "softsign", "sqrt", "sub", "tanh", "threshold", "to", "type_as", "where",
)  # fmt: skip
def elementwise(call: Call) -> None:
    """Everything that works position by position, with broadcasting. ATen tags most of these operators as pointwise
    and the trace goes by the tag; the names above are those that some torch release leaves untagged."""
    shape = call.out.shape
    operands = [tensor for tensor in call.tensors if tensor.dim() <= len(shape)]
    axes: Axes = {}
    for dim in range(len(shape)):
        found = _couple(call, operands, dim - len(shape), shape[dim])
        if found is not None:
            axes[dim] = found
    offset = bool(axes) and not _keeps_zero(call)
    for out in call.outs:
        if out.shape == shape:
            set_axes(out, axes)
            set_offset(out, offset)
            if not axes and operands and all(is_uniform(tensor) for tensor in operands):
                set_uniform(out)


def _couple(call: Call, operands: list[torch.Tensor], dim: int, size: int) -> Vector | None:
    """Unite the labels of all operands along `dim` (counted from the end); return those of the result."""
    found: Vector | None = None
    fixed, followers = False, []
    for tensor in operands:
        if tensor.dim() < -dim:
            continue
        labels = axes_of(tensor).get(tensor.dim() + dim)
        if tensor.shape[dim] != size or (size == 1 and labels is None):
            if labels is not None:
                call.freeze(tensor, "one channel spread over many", [tensor.dim() + dim])
        elif labels is None:
            fixed = fixed or not follows(tensor, tensor.dim() + dim)
            followers.append(tensor)
        elif found is None:
            found = labels
        else:
            call.unite(found, labels)
    if found is not None and fixed:
        call.space.freeze(found, call.why(f"{call.name} with a tensor of fixed size"))
    elif found is not None:
        for tensor in followers:
            note_spread(call, tensor, tensor.dim() + dim, found)
    return found


def _keeps_zero(call: Call) -> bool:
    """True if a channel whose layers are zeroed gives zero: tried with single numbers, once for each kind of call."""
    leaves, structure = tree_flatten((list(call.args), {k: v for k, v in call.kwargs.items() if k != "memory_format"}))
    kinds = tuple(_kind(leaf) for leaf in leaves)
    key = (call.func, structure, kinds)
    if key not in _KEEPS_ZERO:
        _KEEPS_ZERO[key] = all(_zero_stays(call.func, kinds, structure, other) for other in (0.7, 0.0))
    return _KEEPS_ZERO[key]


@dataclass(frozen=True)
class _Operand:
    """Stand-in for a tensor in such a trial."""

    zero: bool  # a channel that turns zero, instead of anything else
    dtype: torch.dtype


_KEEPS_ZERO: dict[Any, bool] = {}


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return _Operand(bool(axes_of(leaf)) and not has_offset(leaf), leaf.dtype)
    try:
        hash(leaf)
    except TypeError:
        return repr(leaf)
    return leaf


def _zero_stays(func: Any, kinds: Iterable[Any], structure: Any, other: float) -> bool:
    def instance(kind: Any) -> Any:
        if isinstance(kind, _Operand):
            return torch.full((), 0.0 if kind.zero else other).to(kind.dtype)
        return kind

    args, kwargs = tree_unflatten([instance(kind) for kind in kinds], structure)
    try:
        result = func(*args, **kwargs)
    except (RuntimeError, TypeError, IndexError, ValueError):  # it does not take single numbers
        return not any(isinstance(kind, _Operand) and not kind.zero for kind in kinds)
    first = result if isinstance(result, torch.Tensor) else result[0]
    return bool((first == 0).all()) or bool(first.isnan().any())


@rule("copy")
def copy(call: Call) -> None:
    """`copy_(destination, source)`: a destination without labels takes those of the source."""
    destination, source = call.tensors[:2]
    if axes_of(destination) or not axes_of(source):
        elementwise(call)
    elif is_uniform(destination) and destination.shape == source.shape and destination._base is None:
        set_axes(destination, axes_of(source))
    else:
        call.freeze(source, "written into a part of another tensor")


@rule(
    "zeros", "ones", "full", "empty", "rand", "randn", "zeros_like", "ones_like", "full_like", "empty_like",
    "rand_like", "randn_like", "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor",
    "empty_strided", "new_empty_strided", "fill", "zero", "uniform", "normal", "bernoulli_p", "randint",
    "empty_memory_format",
)  # fmt: skip
def factory(call: Call) -> None:
    """Tensors that hold one value, or noise, follow whatever they are combined with; what takes its shape from
    another tensor has that tensor's channels."""
    axes = axes_of(call.tensors[0]) if call.name.endswith("_like") and call.tensors else {}
    for out in call.outs:
        set_uniform(out)
        if axes:
            set_axes(out, axes)
            set_offset(out, call.name != "zeros_like")
