"""Elementwise operators: labels along the same broadcast dimension are coupled."""

from __future__ import annotations

import torch

from eightfold.compress.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.rules.base import Call, is_uniform, rule, set_uniform


@rule(
    "_conj", "_prelu_kernel", "_to_copy", "abs", "add", "addcdiv", "addcmul", "alias", "bernoulli",
    "bitwise_not", "celu", "clamp", "clamp_max", "clamp_min", "clone", "constant", "contiguous", "detach",
    "div", "dropout", "elu", "exp", "fake_quantize", "gelu", "glu_jvp", "hardshrink", "hardsigmoid",
    "hardswish", "hardtanh", "isinf", "isnan", "leaky_relu", "lerp", "lift", "lift_fresh", "log",
    "log_sigmoid_forward", "logical_not", "logit", "masked_fill", "maximum", "minimum", "mish", "mul",
    "nan_to_num", "native_dropout", "neg", "pow", "prelu", "relu", "relu6", "requires_grad", "resolve_conj",
    "resolve_neg", "rrelu_with_noise", "rsqrt", "rsub", "selu", "sigmoid", "silu", "softplus", "softshrink",
    "softsign", "sqrt", "sub", "tanh", "threshold", "to", "type_as", "view_as_real", "where",
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
    for out in call.outs:
        if out.shape == shape:
            set_axes(out, axes)
            if not axes and operands and all(is_uniform(tensor) for tensor in operands):
                set_uniform(out)


def _couple(call: Call, operands: list[torch.Tensor], dim: int, size: int) -> Vector | None:
    """Unite the labels of all operands along `dim` (counted from the end); return those of the result."""
    found: Vector | None = None
    fixed = False
    for tensor in operands:
        if tensor.dim() < -dim:
            continue
        labels = axes_of(tensor).get(tensor.dim() + dim)
        if tensor.shape[dim] != size or (size == 1 and labels is None):
            if labels is not None:
                call.freeze(tensor, "one channel spread over many", [tensor.dim() + dim])
        elif labels is None:
            fixed = fixed or not is_uniform(tensor)
        elif found is None:
            found = labels
        else:
            call.unite(found, labels)
    if found is not None and fixed:
        call.space.freeze(found, call.why(f"{call.name} with a tensor of fixed size"))
    return found


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
    """Tensors that hold one value, or noise, follow whatever they are combined with."""
    for out in call.outs:
        set_uniform(out)
