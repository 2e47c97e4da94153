"""Operators that move or repeat whole dimensions: the labels move the same way."""

from __future__ import annotations

import numpy as np

from eightfold.compress.trace import views
from eightfold.compress.trace.labels import axes_of
from eightfold.compress.trace.rules.base import (
    Call,
    carry,
    keep_uniform,
    note_dimensions,
    positive,
    rule,
    set_offset,
    set_spread,
)


@rule("permute")
def permute(call: Call) -> None:
    """Dimensions in another order."""
    x = call.args[0]
    carry(call, views.move(axes_of(x), [positive(dim, x) for dim in call.args[1]]))
    keep_uniform(call)


@rule("t", "transpose", "swapaxes", "numpy_T", "adjoint", "mT")
def transpose(call: Call) -> None:
    """Two dimensions swapped."""
    x = call.args[0]
    order = list(range(x.dim()))
    first, second = call.args[1:3] if len(call.args) > 2 else (-2, -1)
    if x.dim() > 1:
        first, second = positive(first, x), positive(second, x)
        order[first], order[second] = order[second], order[first]
    carry(call, views.move(axes_of(x), order))
    keep_uniform(call)


@rule("unsqueeze")
def unsqueeze(call: Call) -> None:
    """A new dimension of length 1."""
    x = call.args[0]
    new = call.args[1] % (x.dim() + 1)
    carry(call, {dim + (dim >= new): labels for dim, labels in axes_of(x).items()})
    keep_uniform(call)


@rule("squeeze")
def squeeze(call: Call) -> None:
    """Dimensions of length 1 removed."""
    x = call.args[0]
    wanted = call.args[1] if len(call.args) > 1 else range(x.dim())
    wanted = [wanted] if isinstance(wanted, int) else wanted
    gone = {positive(dim, x) for dim in wanted if x.shape[dim] == 1}
    call.freeze(x, "one channel taken by its position", gone)
    left = [dim for dim in range(x.dim()) if dim not in gone]
    carry(call, views.move(axes_of(x), left))
    keep_uniform(call)


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> None:
    """Dimensions of length 1 broadcast."""
    x, out = call.args[0], call.out
    shift = out.dim() - x.dim()
    kept = {dim: labels for dim, labels in axes_of(x).items() if x.shape[dim] == out.shape[dim + shift]}
    call.freeze(x, "one channel spread over many", set(axes_of(x)) - set(kept))
    carry(call, {dim + shift: labels for dim, labels in kept.items()})
    note_dimensions(call)
    set_spread(out, call.module)
    keep_uniform(call)


@rule("repeat", "tile")
def repeat(call: Call) -> None:
    """Tiles along every dimension."""
    x, out = call.args[0], call.out
    shift = out.dim() - x.dim()
    carry(call, {d + shift: np.tile(v, out.shape[d + shift] // x.shape[d]) for d, v in axes_of(x).items()})
    keep_uniform(call)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> None:
    """Each index repeated in place along one dimension."""
    x, times, dim = call.args[0], call.args[1], call.arg(2, "dim")
    if not axes_of(x) or not isinstance(times, int) or dim is None:
        call.freeze(x, "repeat_interleave")
        return
    dim = positive(dim, x)
    carry(call, {d: np.repeat(v, times) if d == dim else v for d, v in axes_of(x).items()})


@rule("flip")
def flip(call: Call) -> None:
    """Dimensions reversed."""
    x = call.args[0]
    turned = {positive(dim, x) for dim in call.args[1]}
    carry(call, {d: np.ascontiguousarray(v[::-1]) if d in turned else v for d, v in axes_of(x).items()})


@rule("roll", "rot90", "constant_pad_nd", "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
      "replication_pad1d", "replication_pad2d", "replication_pad3d", "tril", "triu")  # fmt: skip
def reposition(call: Call) -> None:
    """Dimensions that change keep no labels; those of equal size do."""
    x, out = call.args[0], call.out
    moved: set[int] = set()
    if call.name == "roll":
        moved = {positive(dim, x) for dim in call.arg(2, "dims", ())}
    same = {d for d in axes_of(x) if out.shape[d] == x.shape[d] and d not in moved}
    call.freeze(x, f"{call.name} along channels", set(axes_of(x)) - same)
    carry(call, {dim: axes_of(x)[dim] for dim in same})
    if call.name in ("constant_pad_nd", "pad") and call.arg(2, "value", 0):
        set_offset(out, True)
    keep_uniform(call)
