"""Recurrent layers, one step at a time on plain products, so that the gates of a unit are seen to belong together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eightfold.compress.onnx.operators.base import Node, listed, operator

State = tuple[Tensor, ...]
Advance = Callable[[Tensor, State], State]
"""(products of one step's inputs, state) -> the next state; the first of it is the output."""

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "softsign": torch.nn.functional.softsign,
    "softplus": torch.nn.functional.softplus, "hardsigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
    "affine": lambda x: x,
}  # fmt: skip
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


@operator("LSTM", "GRU", "RNN")
def recurrent(
    node: Node,
    x: Tensor,
    weight: Tensor,
    again: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """x [steps, batch, inputs] -> Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden]."""
    by_batch = node.flag("layout")
    if "clip" in node.attributes:
        raise node.refuse("clip")
    if by_batch:
        x = x.transpose(0, 1)
        hidden, cell = (state if state is None else state.transpose(0, 1) for state in (hidden, cell))
    directions = weight.shape[0]
    backwards = [node.text("direction", "forward") == "reverse"] if directions == 1 else [False, True]
    limits = None if lengths is None or set(listed(lengths)) == {x.shape[0]} else lengths
    runs = []
    for place, backward in enumerate(backwards):
        parts = [t if t is None else t.select(0, place) for t in (bias, hidden, cell, peepholes)]
        functions = _functions(node, place)
        into, back = weight.select(0, place), again.select(0, place)
        runs.append(_run(node, x, into, back, parts[0], parts[1:], functions, backward, limits))
    outputs = torch.stack([run[0] for run in runs], 1)
    finals = [torch.stack([run[1][number] for run in runs]) for number in range(len(runs[0][1]))]
    if by_batch:
        return (outputs.permute(2, 0, 1, 3), *(final.transpose(0, 1) for final in finals))
    return (outputs, *finals)


def _functions(node: Node, direction: int) -> list[Callable[[Tensor], Tensor]]:
    defaults = _DEFAULTS[node.op]
    named = list(node.get("activations") or defaults * 2)
    if "activation_alpha" in node.attributes or "activation_beta" in node.attributes:
        raise node.refuse("activations with numbers of their own")
    chosen = [str(name).lower() for name in named[direction * len(defaults) : (direction + 1) * len(defaults)]]
    for name in chosen:
        if name not in _FUNCTIONS:
            raise node.refuse(f"activation {name}")
    return [_FUNCTIONS[name] for name in chosen]


def _run(
    node: Node,
    x: Tensor,
    weight: Tensor,
    again: Tensor,
    bias: Tensor | None,
    given: list[Tensor | None],
    functions: list[Callable[[Tensor], Tensor]],
    backward: bool,
    limits: Tensor | None,
) -> tuple[Tensor, State]:
    steps, batch = x.shape[:2]
    units = again.shape[-1]
    count = 2 if node.op == "LSTM" else 1
    state: State = tuple(x.new_zeros(batch, units) if each is None else each for each in given[:count])
    advance = _ADVANCE[node.op](node, again, bias, given[2], functions)
    products = torch.mm(x.reshape(steps * batch, x.shape[2]), weight.t()).view(steps, batch, weight.shape[0])
    outputs: list[Tensor] = [state[0]] * steps
    for step in reversed(range(steps)) if backward else range(steps):
        following = advance(products[step], state)
        if limits is not None:
            alive = (limits > step).unsqueeze(1)
            outputs[step] = torch.where(alive, following[0], torch.zeros_like(following[0]))
            following = tuple(torch.where(alive, new, old) for new, old in zip(following, state, strict=True))
        else:
            outputs[step] = following[0]
        state = following
    return torch.stack(outputs), state


Functions = list[Callable[[Tensor], Tensor]]


def _lstm(node: Node, again: Tensor, bias: Tensor | None, peep: Tensor | None, f: Functions) -> Advance:
    """Gates in the order input, output, forget, cell."""
    into, recurrent_bias = _biases(bias)
    peepholes = None if peep is None else peep.chunk(3)

    def advance(products: Tensor, state: State) -> State:
        h, c = state
        gates = _with(products, into) + _with(torch.mm(h, again.t()), recurrent_bias)
        i, o, forget, new = gates.chunk(4, 1)
        if peepholes is not None:
            i, forget = i + peepholes[0] * c, forget + peepholes[2] * c
        kept = (1 - f[0](i)) if node.flag("input_forget") else f[0](forget)
        c = kept * c + f[0](i) * f[1](new)
        o = o if peepholes is None else o + peepholes[1] * c
        return f[0](o) * f[2](c), c

    return advance


def _gru(node: Node, again: Tensor, bias: Tensor | None, _: Tensor | None, f: Functions) -> Advance:
    """Gates in the order update, reset, hidden."""
    into, recurrent_bias = _biases(bias)
    both = 2 * again.shape[-1]
    update_reset, of_hidden = again[:both], again[both:]
    first_bias = None if recurrent_bias is None else recurrent_bias[:both]
    last_bias = None if recurrent_bias is None else recurrent_bias[both:]

    def advance(products: Tensor, state: State) -> State:
        (h,) = state
        z_in, r_in, new = _with(products, into).chunk(3, 1)
        z_again, r_again = _with(torch.mm(h, update_reset.t()), first_bias).chunk(2, 1)
        z, r = f[0](z_in + z_again), f[0](r_in + r_again)
        if node.flag("linear_before_reset"):
            mixed = r * _with(torch.mm(h, of_hidden.t()), last_bias)
        else:
            mixed = _with(torch.mm(r * h, of_hidden.t()), last_bias)
        return ((1 - z) * f[1](new + mixed) + z * h,)

    return advance


def _rnn(node: Node, again: Tensor, bias: Tensor | None, _: Tensor | None, f: Functions) -> Advance:
    into, recurrent_bias = _biases(bias)

    def advance(products: Tensor, state: State) -> State:
        return (f[0](_with(products, into) + _with(torch.mm(state[0], again.t()), recurrent_bias)),)

    return advance


def _biases(bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if bias is None:
        return None, None
    into, again = bias.chunk(2)
    return into, again


def _with(products: Tensor, bias: Tensor | None) -> Tensor:
    return products if bias is None else products + bias


_ADVANCE: dict[str, Callable[[Node, Tensor, Tensor | None, Tensor | None, Functions], Advance]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
}
