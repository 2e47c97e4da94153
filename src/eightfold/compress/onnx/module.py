"""An ONNX graph as a torch module: initializers are its parameters and buffers, under their own names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from eightfold.compress.onnx.host import Host, Value, tensor_of
from eightfold.compress.onnx.step import NodeStep
from eightfold.errors import TraceError


@dataclass(frozen=True)
class GraphInput:
    """One input of the graph. A size of 0 stands for a dynamic dimension."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """Nodes in order, and what can be forgotten behind each."""

    steps: tuple[NodeStep | Choice, ...]
    outputs: tuple[str, ...]
    forget: tuple[tuple[str, ...], ...] = field(repr=False, default=())

    @classmethod
    def of(cls, steps: Sequence[NodeStep | Choice], outputs: Sequence[str]) -> Program:
        """Work out after which step each value has been read for the last time."""
        last: dict[str, int] = {}
        for place, step in enumerate(steps):
            last.update(dict.fromkeys((*step.reads, *step.makes), place))
        forget: list[list[str]] = [[] for _ in steps]
        for name, place in last.items():
            if name not in outputs:
                forget[place].append(name)
        return cls(tuple(steps), tuple(outputs), tuple(map(tuple, forget)))

    def run(self, values: dict[str, Value]) -> None:
        """Run every step on `values`, in place."""
        for step, forget in zip(self.steps, self.forget, strict=True):
            if isinstance(step, Choice):
                step(values)
            else:
                made = step(*(values[name] if name else None for name in step.reads))
                values.update(zip(step.makes, made, strict=False))
            for name in forget:
                values.pop(name, None)


class Choice(nn.Module):
    """If with a condition that is known before any image is seen."""

    reads: tuple[str, ...]

    def __init__(
        self, name: str, key: str, condition: str, makes: Sequence[str], branches: Mapping[bool, Program]
    ) -> None:
        super().__init__()
        self.name, self.key, self.condition = name, key, condition
        self.makes, self.branches = tuple(makes), dict(branches)
        inner = {name for program in branches.values() for step in program.steps for name in step.reads}
        self.reads = (condition, *sorted(inner | {name for program in branches.values() for name in program.outputs}))
        for taken, program in branches.items():
            for number, step in enumerate(program.steps):
                self.add_module(f"{'then' if taken else 'else'}{number}", step)

    def forward(self, values: dict[str, Value]) -> None:
        condition = values[self.condition]
        if not isinstance(condition, Host):
            raise TraceError(
                f"the condition of If node {self.name!r} depends on the input",
                allowed="a condition that is constant, or follows from shapes",
                remedy="simplify the graph, or cut it before the node",
            )
        program = self.branches[bool(condition.tensor.item())]
        inner = dict(values)
        program.run(inner)
        values.update({name: inner[made] for name, made in zip(self.makes, program.outputs, strict=True)})


class OnnxModule(nn.Module):
    """Runs an ONNX graph on torch tensors.

    `named_parameters()` gives the weights and biases, `named_buffers()` the other floating-point initializers
    (running statistics, grids of anchors); both by the names that they have in the graph, dots and slashes included.
    Whole numbers and single numbers are no tensors of the module.

    Attributes:
        inputs: in the order in which `forward` takes them.
        outputs: names, in the order in which it returns them.
        constants: names of what `Step.origins` numbers.
    """

    def __init__(
        self,
        inputs: Sequence[GraphInput],
        program: Program,
        paths: Sequence[str],
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        hosts: Mapping[str, Host],
        constants: Sequence[str],
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.constants = tuple(inputs), program.outputs, tuple(constants)
        self._program, self._hosts = program, dict(hosts)
        # Not through register_parameter, which takes no names with dots.
        self._parameters.update({name: nn.Parameter(tensor) for name, tensor in parameters.items()})
        self._buffers.update(buffers)
        for path, step in zip(paths, program.steps, strict=True):
            self._modules[path] = step

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Inputs in the graph's order, or by name. Returns one tensor, or a tuple of all outputs."""
        values: dict[str, Value] = {**self._parameters, **self._buffers, **self._hosts}
        values.update(zip((each.name for each in self.inputs), args, strict=False))
        values.update(kwargs)
        self._program.run(values)
        tensors = tuple(tensor_of(values[name]) for name in self.outputs)
        return tensors[0] if len(tensors) == 1 else tensors
