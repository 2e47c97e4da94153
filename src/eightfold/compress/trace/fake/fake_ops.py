"""Operators that a fake run does not compute: the result that each would give, in uncomputed memory, from shapes alone.

A function here returns None for arguments that it does not know, or whose shapes do not fit; the operator then runs
and says so itself. Strides are those that the operator gives, because `view` depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from eightfold.compress.trace.fake.uncomputed import Memory, mark, memory_of
from eightfold.compress.types import Args, Kwargs

Result = Tensor | tuple[Tensor, ...] | None
FakeOp = Callable[[Args, Kwargs], Result]
"""The operator's result, or None to have it run."""

FAKE_OPS: dict[str, FakeOp] = {}
LITTLE = 8  # known numbers that are so many times fewer than those of the result say nothing about it


def fakes(*names: str) -> Callable[[FakeOp], FakeOp]:
    """Register a function for operators."""

    def register(function: FakeOp) -> FakeOp:
        FAKE_OPS.update(dict.fromkeys(names, function))
        return function

    return register


@fakes("relu", "hardtanh", "hardsigmoid", "sigmoid", "silu", "hardswish", "gelu")
def fake_positive(args: Args, kwargs: Kwargs) -> Result:
    """Elementwise functions that give positive numbers, or nearly so."""
    return _like(args[0], fake_positive=True)


@fakes("leaky_relu", "elu", "mish", "neg", "tanh", "roll")
def unary(args: Args, kwargs: Kwargs) -> Result:
    """Elementwise functions of one tensor."""
    return _like(args[0])


@fakes("clone")
def clone(args: Args, kwargs: Kwargs) -> Result:
    """A copy in another memory format."""
    x: Tensor = args[0]
    return mark(torch.empty_like(x, **kwargs), Memory(_is_positive(x)))


@fakes("add", "sub", "mul", "div")
def binary(args: Args, kwargs: Kwargs) -> Result:
    """Elementwise functions of two tensors, or of a tensor and a number. Strides follow the first of full shape."""
    x, y = args[:2]
    if not isinstance(y, Tensor):
        return _like(x)
    if not isinstance(x, Tensor) or not _alike(x, y):
        return None
    full = x if _spreads_to(y.shape, x.shape) else y if _spreads_to(x.shape, y.shape) else None
    if full is None or _matters(x, full.numel()) or _matters(y, full.numel()):
        return None
    return _like(full)


def _matters(tensor: Tensor, values: int) -> bool:
    """True if a result with this number of `values` may depend on the known numbers of `tensor`: anchors of boxes
    count, parameters and scales of channels do not."""
    known = memory_of(tensor) is None and not isinstance(tensor, torch.nn.Parameter)
    return known and tensor.numel() * LITTLE > values


def _alike(x: Tensor, y: Tensor) -> bool:
    return x.dtype == y.dtype and x.is_floating_point()


def _spreads_to(small: torch.Size, large: torch.Size) -> bool:
    """True if a tensor of shape `small` is broadcast to `large`."""
    if small == large:
        return True
    if len(small) > len(large):
        return False
    return all(a in (1, b) for a, b in zip(reversed(small), reversed(large), strict=False))


@fakes("convolution")
def fake_convolution(args: Args, kwargs: Kwargs) -> Result:
    """Convolutions of any dimension, transposed ones included."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    into, out = (
        (weight.shape[0], weight.shape[1] * groups) if transposed else (weight.shape[1] * groups, weight.shape[0])
    )
    fits = x.dim() == weight.dim() > 2 and _alike(x, weight) and x.shape[1] == into
    if not fits or weight.shape[0] % groups or (bias is not None and bias.shape != (out,)):
        return None
    shape = [x.shape[0], out]
    for axis, (size, kernel) in enumerate(zip(x.shape[2:], weight.shape[2:], strict=True)):
        s, p, d, more = (value[axis % len(value)] for value in (stride, padding, dilation, output_padding))
        reach = d * (kernel - 1) + 1
        shape.append((size - 1) * s - 2 * p + reach + more if transposed else (size + 2 * p - reach) // s + 1)
    return _unread(shape, x, memory_format=_format(x)) if min(shape[2:]) > 0 else None


@fakes("mm", "bmm")
def product(args: Args, kwargs: Kwargs) -> Result:
    """Matrix products with equal batch dimensions."""
    x, y = args[:2]
    if not _alike(x, y) or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
        return None
    return _unread((*x.shape[:-1], y.shape[-1]), x)


@fakes("addmm")
def product_and_bias(args: Args, kwargs: Kwargs) -> Result:
    bias, x, y = args[:3]
    return product((x, y), {}) if bias.dtype == x.dtype and bias.shape == y.shape[-1:] else None


@fakes("_scaled_dot_product_flash_attention_for_cpu")
def fake_attention(args: Args, kwargs: Kwargs) -> Result:
    """query, key, value [batch, heads, tokens, width], all of one width."""
    query, key, value = args[:3]
    if query.dim() != 4 or query.shape[:2] != key.shape[:2] or key.shape != value.shape:
        return None
    return (
        None if query.shape[3] != key.shape[3] else (_like(query, fake_positive=False), _zeros(query.shape[:3], query))
    )


@fakes("native_batch_norm")
def fake_batch_norm(args: Args, kwargs: Kwargs) -> Result:
    x, training = args[0], args[5]
    vectors = [vector for vector in args[1:5] if vector is not None]
    if x.dim() < 2 or any(vector.shape != x.shape[1:2] for vector in vectors):
        return None
    statistics = _zeros(x.shape[1:2] if training else (0,), x)
    return _like(x, fake_positive=False), statistics, statistics


@fakes("native_layer_norm")
def fake_layer_norm(args: Args, kwargs: Kwargs) -> Result:
    """Layer normalization."""
    x, over = args[0], tuple(args[1])
    if x.shape[x.dim() - len(over) :] != over or any(t is not None and t.shape != over for t in args[2:4]):
        return None
    statistics = _zeros((*x.shape[: x.dim() - len(over)], *[1] * len(over)), x)
    return _unread(x.shape, x), statistics, statistics


@fakes("max_pool2d_with_indices")
def max_pool(args: Args, kwargs: Kwargs) -> Result:
    """Max pooling, with or without indices."""
    x, kernel, stride, padding, dilation, ceil = _with_defaults(args, [], [0], [1], False)
    out = _pooled(x, kernel, stride, padding, dilation, ceil)
    return None if out is None else (out, _zeros(out.shape, x, dtype=torch.int64))


@fakes("avg_pool2d")
def average_pool(args: Args, kwargs: Kwargs) -> Result:
    """Average pooling."""
    x, kernel, stride, padding, ceil = _with_defaults(args[:5], [], [0], False)
    return _pooled(x, kernel, stride, padding, [1], ceil)


def _with_defaults(args: Args, *defaults: Any) -> list[Any]:
    """The input, the kernel, and what follows, where the last arguments may be missing."""
    return [*args, *defaults[len(args) - 2 :]]


def _pooled(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], ceil: bool
) -> Tensor | None:
    shape = list(x.shape[:-2])
    for axis, size in enumerate(x.shape[-2:]):
        k, p, d = (value[axis % len(value)] for value in (kernel, padding, dilation))
        s = stride[axis % len(stride)] if stride else k
        count = (size + 2 * p - d * (k - 1) - 1 + (s - 1 if ceil else 0)) // s + 1
        shape.append(count - (ceil and (count - 1) * s >= size + p))  # the last window starts inside the map
    return _unread(shape, x, _is_positive(x), _format(x)) if min(shape[-2:]) > 0 and len(shape) > 2 else None


@fakes("_adaptive_avg_pool2d")
def fake_adaptive_pool(args: Args, kwargs: Kwargs) -> Result:
    """Adaptive average pooling."""
    x, size = args[:2]
    return _unread((*x.shape[:-2], *size), x, _is_positive(x), _format(x))


@fakes("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
def fake_resize(args: Args, kwargs: Kwargs) -> Result:
    """Interpolation of images to a given size."""
    x, size = args[:2]
    if size is None or x.dim() != 4 or len(size) != 2:
        return None
    return _unread((*x.shape[:2], *size), x, _is_positive(x), _format(x))


@fakes("mean")
def mean(args: Args, kwargs: Kwargs) -> Result:
    """Means over given dimensions."""
    if len(args) < 2 or kwargs:
        return None
    x, dims, keep = (*args, False)[:3]
    over = {dim % x.dim() for dim in dims or ()}
    shape = [1 if dim in over else size for dim, size in enumerate(x.shape) if keep or dim not in over]
    return _unread(shape, x, _is_positive(x)) if over else None


@fakes("cat")
def fake_cat(args: Args, kwargs: Kwargs) -> Result:
    """Concatenation along one dimension."""
    tensors, dim = (*args, 0)[:2]
    first: Tensor = tensors[0]
    shape = list(first.shape)
    dim %= max(len(shape), 1)
    rest = [(*t.shape[:dim], *t.shape[dim + 1 :]) for t in tensors]
    if any(t.dtype != first.dtype or t.dim() != first.dim() for t in tensors) or len(set(rest)) > 1:
        return None
    shape[dim] = sum(t.shape[dim] for t in tensors)
    if any(_matters(t, prod(shape)) for t in tensors):
        return None
    return _unread(shape, first, all(map(_is_positive, tensors)), _format(first))


@fakes("constant_pad_nd")
def pad(args: Args, kwargs: Kwargs) -> Result:
    """Padding with a constant."""
    x, amounts = args[:2]
    shape = list(x.shape)
    for number in range(len(amounts) // 2):
        shape[-1 - number] += amounts[2 * number] + amounts[2 * number + 1]
    return _unread(shape, x, memory_format=_format(x)) if min(shape) > 0 else None


def _like(x: Tensor, fake_positive: bool | None = None) -> Tensor:
    """Unread memory with the shape and strides that an elementwise function of `x` has."""
    return mark(torch.empty_like(x), Memory(_is_positive(x) if fake_positive is None else fake_positive))


def _unread(
    shape: Sequence[int],
    like: Tensor,
    fake_positive: bool = False,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    out = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)
    return mark(out, Memory(fake_positive))


def _zeros(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros that take no memory."""
    return like.new_zeros((), dtype=dtype or like.dtype).expand(shape)


def _format(x: Tensor) -> torch.memory_format:
    """The layout in which an operator on maps answers `x`."""
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _is_positive(tensor: Tensor) -> bool:
    memory = memory_of(tensor)
    return memory is not None and memory.positive
