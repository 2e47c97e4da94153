"""Recurrent layers that run as one operator; torch splits the others into products and gates by itself."""

from __future__ import annotations

import numpy as np

from eightfold.compress.trace.labels import Axes, Vector, axes_of, set_axes
from eightfold.compress.trace.rules.base import Call, RawLayer, rule, set_offset

_GATES = 4


@rule("mkldnn_rnn_layer")
def lstm_layer(call: Call) -> None:
    """x [steps, batch, inputs], weights [4 hidden, inputs] and [4 hidden, hidden], two biases, hidden and cell state.

    The four gates of a hidden unit stand and fall together. A unit without weights stays at zero. Directions and layers
    of one module share one hidden size, and so their units."""
    x, into, again = call.args[:3]
    hidden = _units(call, axes_of(into)[0])
    call.unite(call.record.hidden.setdefault(call.module, hidden), hidden)
    call.unite(hidden, axes_of(again)[1])
    for vector in (again, *call.args[3:5]):
        if 0 in axes_of(vector):
            call.unite(hidden, _units(call, axes_of(vector)[0]))
    for state in call.args[5:7]:
        if state.dim() - 1 in axes_of(state):
            call.unite(hidden, axes_of(state)[state.dim() - 1])
    call.contract(x, x.dim() - 1, into, 1)
    inputs = axes_of(x).get(x.dim() - 1, np.zeros(x.shape[-1], dtype=np.int64))
    for weight, columns in ((into, inputs), (again, hidden)):
        call.record.layers.append(_layer(call, weight, columns, x.numel() // x.shape[-1]))
    _give(call, hidden)


def _units(call: Call, labels: Vector) -> Vector:
    table = labels.reshape(_GATES, -1)
    call.space.unite_rows(table, call.why("gates"))
    return np.ascontiguousarray(table[0])


def _layer(call: Call, weight: object, columns: Vector, rows: int) -> RawLayer:
    transposed = weight.t()  # type: ignore[attr-defined]  # a tensor; products have their weights this way round
    axes = axes_of(weight)
    set_axes(transposed, {0: axes[1], 1: axes[0]})
    return RawLayer("linear", call.module, transposed, None, columns, axes[0], {}, transposed.numel() * rows)


def _give(call: Call, hidden: Vector) -> None:
    for out in call.outs[:3]:
        last: Axes = {out.dim() - 1: hidden}
        if out.shape[-1] == len(hidden):
            set_axes(out, last)
            set_offset(out, False)
