"""Means over channels: sums whose divisor counts the channels.

A removed channel is zero, so a mean over n channels becomes the same sum over n' of them: it grows by the factor n/n'.
The factor is followed through the operators behind the mean (powers, roots, quotients, products) until a weight takes
it: surgery multiplies that weight by the inverse, and nothing else changes. RMS norms and global response norms are of
this kind. An operator that does not pass a factor on freezes the channels.

The small constant that such a norm adds against a division by zero counts as zero.

A mean that is subtracted leaves nothing to scale. A trace with `layer_norms` lets its channels go all the same: the
mean, and the variance made from what is centred so, are then of the channels that are left; see `rules.norms`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from eightfold.compress.trace.labels import axes_of
from eightfold.compress.trace.rules.base import Call, ChannelFactor, dims_of, has_offset, rule
from eightfold.compress.trace.rules.norms import may_shrink, note_norm
from eightfold.compress.trace.rules.reduction import drop_dims

REASON = "mean over channels"
LARGEST_EPSILON = 1e-4
_FACTORS = "_eightfold_factors"
# Marks tensors whose mean over channels is zero by construction, and products of such tensors.
_CENTRED = "_eightfold_centred"

# Several factors of one tensor: of means over different channels.
Factors = tuple[ChannelFactor, ...]
Handler = Callable[[Call], Factors | None]  # None: the operator cannot pass the factors on
_HANDLERS: dict[str, Handler] = {}


def factors_of(tensor: object) -> Factors:
    """The factors by which a tensor grows once channels are gone."""
    found: Factors = getattr(tensor, _FACTORS, ())
    return found


@rule("mean")
def mean(call: Call) -> None:
    """The divisor is the number of channels, which later operators may make good; see `follow_factors`."""
    x = call.args[0]
    dims = dims_of(call.arg(1, "dim"), x)
    counted = [axes_of(x)[dim] for dim in dims if dim in axes_of(x)]
    if counted and has_offset(x) and not _is_centred(x):
        call.freeze(x, f"{REASON} that stay nonzero without their layer", dims)
    drop_dims(call, dims, call.out.dim() == x.dim())


def follow_factors(call: Call) -> None:
    """Pass the factors of the operands on to the results, let a weight take them, or freeze their channels."""
    name = call.name.rstrip("_")
    if name not in _MOVING:
        call.record.count_uses(call.tensors)
    if name in ("mul", "pow", "square") and all(_is_centred(tensor) for tensor in call.tensors if axes_of(tensor)):
        _set_centred(call)
    if name != "mean" and not any(factors_of(tensor) for tensor in call.tensors):
        return
    handler = _HANDLERS.get(name)
    found = handler(call) if handler is not None else None
    if found is None:
        freeze_factors(call, call.tensors)
    for out in call.outs:
        setattr(out, _FACTORS, found or ())


def freeze_factors(call: Call, tensors: Iterable[torch.Tensor]) -> None:
    """Freeze the channels that the tensors are means of."""
    for tensor in tensors:
        for factor in factors_of(tensor):
            call.space.freeze(factor.labels, call.why(REASON))


def _handles(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


# They give a weight, or a part of it, another shape.
_MOVING = frozenset(
    ("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand",
     "contiguous", "detach", "alias", "lift_fresh")
)  # fmt: skip


@_handles(*_MOVING, "clone", "_to_copy", "to", "select", "slice", "repeat", "flip", "roll", "unbind", "split", "chunk",
          "split_with_sizes", "neg", "abs", "relu", "leaky_relu", "sum", "linalg_vector_norm", "avg_pool2d",
          "upsample_nearest2d", "upsample_bilinear2d")  # fmt: skip
def _same(call: Call) -> Factors | None:
    return factors_of(call.args[0])


@_handles("mean")
def _mean(call: Call) -> Factors | None:
    x = call.args[0]
    if _is_centred(x):
        return factors_of(x)
    dims = dims_of(call.arg(1, "dim"), x)
    counted = (ChannelFactor(axes_of(x)[dim], 1.0) for dim in dims if dim in axes_of(x))
    return _times(factors_of(x), tuple(counted))


@_handles("sqrt", "rsqrt", "reciprocal", "square", "pow")
def _power(call: Call) -> Factors | None:
    powers = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0}
    power = powers.get(call.name.rstrip("_")) or _number(call.arg(1, "exponent"))
    return None if power is None else _raised(factors_of(call.args[0]), power)


@_handles("add", "sub", "clamp_min", "clamp", "maximum")
def _epsilon(call: Call) -> Factors | None:
    """Small numbers, or a tensor with the same factors; or the mean of the channels that it is taken from."""
    x, *others = call.args
    if call.name.startswith("sub") and _centres(call, x, others[0]):
        note_norm(call, factors_of(others[0])[0].labels)
        _set_centred(call)
        return ()
    if call.name.startswith(("add", "maximum")) and not factors_of(x):
        x, others = others[0], [x, *others[1:]]
    numbers = [_number(other) for other in (*others, *call.kwargs.values()) if other is not None]
    if all(number is not None and abs(number) <= LARGEST_EPSILON for number in numbers):
        return factors_of(x)
    first, second = factors_of(x), factors_of(others[0]) if others else ()
    return first if first and _times(first, _raised(second, -1.0)) == () else None


def _centres(call: Call, x: object, mean: object) -> bool:
    """True for x minus its own mean over channels, which may be a mean over fewer."""
    factors = factors_of(mean)
    if not isinstance(x, torch.Tensor) or factors_of(x) or len(factors) != 1 or factors[0].power != 1:
        return False
    own = any(labels.tobytes() == factors[0].labels.tobytes() for labels in axes_of(x).values())
    return own and not axes_of(mean).keys() & axes_of(x).keys() and may_shrink(call, x, factors[0].labels)


def _is_centred(tensor: object) -> bool:
    return bool(getattr(tensor, _CENTRED, False))


def _set_centred(call: Call) -> None:
    for out in call.outs:
        setattr(out, _CENTRED, True)


@_handles("mul", "div")
def _product(call: Call) -> Factors | None:
    first, second = call.args[:2]
    sign = 1.0 if call.name.startswith("mul") else -1.0
    if len(call.args) > 2 or call.kwargs:  # a quotient that is rounded
        return None
    if _is_weight(call, first):
        return _folded(call, first, _raised(factors_of(second), sign))
    if _is_weight(call, second):
        return _folded(call, second, _raised(factors_of(first), sign))
    return _times(factors_of(first), _raised(factors_of(second), sign))


def _is_weight(call: Call, tensor: object) -> bool:
    """A weight of several values; a single one is a number in the model's formula."""
    held = call.record.weight(tensor)
    return held is not None and held.numel() > 1


@_handles("addcmul")
def _added_product(call: Call) -> Factors | None:
    added, first, second = call.args[:3]
    if factors_of(added):
        return None
    weight, scaled = (first, second) if factors_of(second) else (second, first)
    return None if factors_of(weight) else _folded(call, weight, factors_of(scaled))


@_handles("convolution", "mm", "linear", "addmm", "bmm")
def _layer(call: Call) -> Factors | None:
    x, weight = call.args[1:3] if call.name == "addmm" else call.args[:2]
    if call.name == "bmm":
        return _times(factors_of(x), factors_of(weight))
    return _folded(call, weight, factors_of(x)) if factors_of(x) and not factors_of(weight) else None


def _folded(call: Call, weight: object, factors: Factors) -> Factors | None:
    """The weight takes the factors."""
    held = call.record.weight(weight)
    if held is None or len(factors) != 1:
        return None
    call.record.folds.append((held, factors[0]))
    return ()


def _times(*parts: Factors) -> Factors:
    """The product of several factors; those that cancel out are left out."""
    powers: dict[bytes, ChannelFactor] = {}
    for factor in (each for part in parts for each in part):
        key = factor.labels.tobytes()
        known = powers.get(key, ChannelFactor(factor.labels, 0.0))
        powers[key] = ChannelFactor(factor.labels, known.power + factor.power)
    return tuple(factor for factor in powers.values() if factor.power)


def _raised(factors: Factors, power: float) -> Factors:
    return tuple(ChannelFactor(factor.labels, factor.power * power) for factor in factors)


def _number(value: Any) -> float | None:
    """A number, or the single value of a tensor that is no weight."""
    if isinstance(value, torch.Tensor):
        one = value.numel() == 1 and not axes_of(value) and not factors_of(value)
        return float(value) if one and value.device.type != "meta" else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
