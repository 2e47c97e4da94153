"""Reductions, scans and normalising functions over dimensions."""

from __future__ import annotations

from eightfold.compress.trace.labels import Axes, axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, dims_of, has_offset, positive, rule, set_offset
from eightfold.compress.trace.rules.norms import may_shrink, note_norm


@rule("sum", "nansum", "linalg_vector_norm", "norm")
def additive(call: Call) -> None:
    """Removed channels hold zero, so a sum or a norm over channels does not see that they are gone."""
    x = call.args[0]
    position, keep = (2, 3) if call.name in ("linalg_vector_norm", "norm") else (1, 2)
    if has_offset(x):
        dims = dims_of(call.arg(position, "dim"), x)
        call.freeze(x, f"{call.name} over channels that stay nonzero without their layer", dims)
    drop_dims(call, dims_of(call.arg(position, "dim"), x), bool(call.arg(keep, "keepdim", False)))


_VARIANCES = ("var", "std", "var_mean", "std_mean")


@rule("var", "std", "var_mean", "std_mean", "amax", "amin", "prod", "logsumexp", "all", "any", "max", "min",
      "median", "argmax", "argmin", "aminmax", "mode", "nanmean")  # fmt: skip
def reduce(call: Call) -> None:
    """A reduction over channels depends on how many there are."""
    x = call.args[0]
    dims = dims_of(call.arg(1, "dim"), x)
    for dim in (each for each in dims if each in axes_of(x)):
        if call.name in _VARIANCES and may_shrink(call, x, axes_of(x)[dim]):
            note_norm(call, axes_of(x)[dim])
        else:
            call.freeze(x, f"{call.name} over channels", [dim])
    drop_dims(call, dims, any(out.dim() == x.dim() for out in call.outs))
    if call.name == "logsumexp":
        set_offset(call.out, True)


def drop_dims(call: Call, dims: list[int], keep: bool) -> None:
    """The results have the labels of the dimensions that are not reduced."""
    x = call.args[0]
    left = [dim for dim in range(x.dim()) if dim not in dims]
    places = range(x.dim()) if keep else left
    axes: Axes = {new: axes_of(x)[old] for new, old in enumerate(places) if old in axes_of(x) and old not in dims}
    for out in call.outs:
        set_axes(out, axes)


@rule("_softmax", "softmax", "_log_softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp", "sort", "topk",
      "_safe_softmax", "glu")  # fmt: skip
def along_one(call: Call) -> None:
    """Functions of a whole dimension: labels of the others pass."""
    x = call.args[0]
    position = 2 if call.name == "topk" else 1
    dim = positive(call.arg(position, "dim", -1), x)
    if call.name == "glu":
        _gated(call, dim)
        return
    call.freeze(x, f"{call.name.strip('_')} over channels", [dim])
    for out in call.outs:
        set_axes(out, {d: labels for d, labels in axes_of(x).items() if d != dim})
        if "softmax" in call.name:
            set_offset(out, True)  # the softmax of zeros


def _gated(call: Call, dim: int) -> None:
    """glu: the second half gates the first."""
    axes = dict(axes_of(call.args[0]))
    if dim in axes:
        halves = axes[dim].reshape(2, -1)
        call.space.unite_rows(halves, call.why("glu"))
        axes[dim] = halves[0].copy()
    set_axes(call.out, axes)
