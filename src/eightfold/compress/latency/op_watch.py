"""Records the operators of one run with their sizes and who reads whom, beside the channels that a trace found."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from eightfold.compress.modules.modules import call_model, plain_attention, preserved
from eightfold.compress.trace.fake.fake_run import FakeRun
from eightfold.compress.trace.fake.tensor_tree import tensors_in
from eightfold.compress.trace.groups import ChannelGraph, Index
from eightfold.compress.trace.op_trace import TracedOp
from eightfold.compress.types import ExampleInputs
from eightfold.export.verify.module_runs import set_evaluation


@dataclass(eq=False)
class SeenOp:
    """One operator call.

    Attributes:
        name: of the ATen operator, without a trailing underscore.
        arguments: with tensors replaced by their shapes.
        sources: number of the call that made each tensor argument; -1 for inputs and parameters.
        shapes: of the tensor arguments.
        out: shape of the first result.
        parameter: name of the weight, where one of the arguments is a parameter of two or more dimensions.
        channels: dimension of the result -> group and channel of each index, as in `ChannelGraph`.
        readers: calls that read a result of this one.
    """

    number: int
    name: str
    arguments: tuple[Any, ...]
    sources: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    parameter: str = ""
    channels: Mapping[int, Index] = field(default_factory=dict)
    readers: list[int] = field(default_factory=list)


def watch(model: nn.Module, example_inputs: ExampleInputs, graph: ChannelGraph) -> list[SeenOp]:
    """Every operator of a run in evaluation mode, with the channels that `graph`, a trace on the same inputs, found."""
    recorder = _Recorder({id(tensor): name for name, tensor in model.named_parameters()})
    with preserved(model), torch.no_grad(), plain_attention():
        set_evaluation(model)
        with recorder:
            call_model(model, example_inputs)
    return _with_channels(recorder.ops, graph)


class _Recorder(FakeRun):  # type: ignore[no-untyped-call]  # torch's base class has no annotations
    def __init__(self, parameters: Mapping[int, str]) -> None:
        super().__init__()
        self.ops: list[SeenOp] = []
        self._parameters = parameters
        self._maker: dict[int, int] = {}
        self._held: list[torch.Tensor] = []  # an id is a tensor's own only while that lives

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        given, made = tensors_in((args, kwargs or {})), tensors_in([result])
        number = len(self.ops)
        sources = tuple(self._maker.get(id(tensor), -1) for tensor in given)
        weights = [self._parameters[id(t)] for t in given if id(t) in self._parameters and t.dim() > 1]
        for source in {source for source in sources if source >= 0}:
            self.ops[source].readers.append(number)
        self.ops.append(
            SeenOp(
                number,
                func.overloadpacket.__name__.removesuffix("_"),
                tuple(tuple(arg.shape) if isinstance(arg, torch.Tensor) else arg for arg in args),
                sources,
                tuple(tuple(tensor.shape) for tensor in given),
                tuple(made[0].shape) if made else (),
                next(iter(weights), ""),
            )
        )
        for tensor in made:
            self._maker[id(tensor)] = number
            if id(tensor) not in self._parameters:
                self._held.append(tensor)
        return result


def _with_channels(ops: list[SeenOp], graph: ChannelGraph) -> list[SeenOp]:
    for op, step in _aligned(ops, graph.trail.steps):
        op.channels = {axis.dim: np.asarray(graph.trail.places[axis.vector]) for axis in step.axes if axis.result == 0}
    return ops


def _aligned(ops: Sequence[SeenOp], steps: Sequence[TracedOp]) -> Iterator[tuple[SeenOp, TracedOp]]:
    """Each call and its step in the trace. A model that keeps what it computed once runs fewer operators now."""
    seen = [(op.name, len(op.out)) for op in ops]
    traced = [(step.operator.removesuffix("_"), step.dims[0] if step.dims else 0) for step in steps]
    if seen == traced[: len(seen)]:
        yield from zip(ops, steps, strict=False)
        return
    for block in difflib.SequenceMatcher(None, seen, traced, autojunk=False).get_matching_blocks():
        yield from zip(ops[block.a : block.a + block.size], steps[block.b : block.b + block.size], strict=True)
