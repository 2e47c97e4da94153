"""Layer norms and group norms: their statistics are over channels, so that they change where channels go.

By default such channels stay. A trace with `layer_norms` frees those of a layer norm, or of a group norm with a single
group: mean and variance are then of the channels that are left, and a calibration has to make good what changes
(`compensate.fitting`). The same holds for a mean that is subtracted and for a variance over channels, from which models
and files make such norms. Norms over more than one dimension, and those within the heads of attention, stay.
"""

from __future__ import annotations

import numpy as np
import torch

from eightfold.compress.trace.labels import Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, RawNorm, has_offset, note_size, rule, set_offset


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(call: Call) -> None:
    """Statistics over the last dimensions."""
    x, normalized = call.args[0], call.args[1]
    first = x.dim() - len(normalized)
    vectors = [tensor for tensor in call.args[2:4] if isinstance(tensor, torch.Tensor)]
    labels = axes_of(x).get(first)
    set_axes(call.out, axes_of(x))
    if len(normalized) == 1 and labels is not None and call.name.endswith("layer_norm") and may_shrink(call, x, labels):
        for tensor in vectors:
            call.join(labels, axes_of(tensor).get(0))
        note_size(call, labels, 0)
        note_norm(call, labels, *call.args[2:4])
        set_offset(call.out, not vectors)
    else:
        call.freeze(x, "layer norm over channels", range(first, x.dim()))
        for tensor in vectors:
            call.freeze(tensor, "layer norm over channels")


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> None:
    """The channels of a norm group share statistics: they stay or go together."""
    x, groups = call.args[0], call.args[6] if call.name == "native_group_norm" else call.args[1]
    weight, bias = call.args[1:3] if call.name == "native_group_norm" else call.args[2:4]
    axes = axes_of(x)
    vectors = [tensor for tensor in (weight, bias) if isinstance(tensor, torch.Tensor)]
    for tensor in vectors:
        call.join(axes.get(1), axes_of(tensor).get(0))
    if groups == 1 and 1 in axes and may_shrink(call, x, axes[1]):
        note_norm(call, axes[1], weight, bias)
    elif groups == 1:
        call.freeze(x, "one group norm over all channels", [1])
    elif 1 in axes:
        # What shares statistics goes together: whole norm groups.
        call.space.unite_rows(np.ascontiguousarray(axes[1].reshape(groups, -1).T), call.why("group norm"))
        note_size(call, np.ascontiguousarray(axes[1].reshape(groups, -1)[:, 0]))
    set_axes(call.out, axes)
    set_offset(call.out, bool(axes) and (not vectors and has_offset(x)))


def may_shrink(call: Call, x: torch.Tensor, labels: Vector) -> bool:
    """True if statistics of `x` over these channels may become those of fewer.

    A split dimension is the width of attention heads. A weight that is standardized is no norm of activations.
    """
    return (
        call.record.layer_norms
        and call.record.weight(x) is None
        and not any(
            len(labels) < len(split.labels) and np.isin(labels, split.labels).all() for split in call.record.splits
        )
    )


def note_norm(call: Call, labels: Vector, weight: object = None, bias: object = None) -> None:
    """Note a norm over channels that may go, and the tensors that scale and shift it if it has any of its own."""
    call.record.norms.append(RawNorm(call.record.weight(weight), call.record.weight(bias), labels))
