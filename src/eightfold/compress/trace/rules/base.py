"""The call that a rule sees, the registry of rules, and the few steps that many rules share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from eightfold.compress.trace.fake.tensor_tree import tensors_in
from eightfold.compress.trace.labels import Axes, LabelSpace, Vector, axes_of, set_axes
from eightfold.compress.trace.op_trace import OpTraceNotes

# Marks tensors of one repeated or random value (zeros, dropout masks): they follow any width.
_UNIFORM = "_eightfold_uniform"
# Marks tensors whose channels do not turn zero when their parameters do, as behind a sigmoid.
_OFFSET = "_eightfold_offset"
# Marks tensors that a module has spread over lengths that it was given, with the module's path.
_SPREAD = "_eightfold_spread"


@dataclass(frozen=True)
class RawLayer:
    """A convolution or linear call as it was traced, still in labels."""

    op: str
    module: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    inputs: Vector
    outputs: Vector
    geometry: Mapping[str, Any] = field(default_factory=dict)
    macs: int = 0


@dataclass(frozen=True)
class RawNorm:
    """A norm whose statistics are over channels that may go; its scale and shift where the model holds them."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None
    channels: Vector


@dataclass(frozen=True)
class RawSize:
    """A size argument that equals a labelled width: it must follow the width, or the width is fixed."""

    module: str
    value: int
    labels: Vector
    position: int | None = None  # its place in a list of sizes


class Split(NamedTuple):
    """A channel dimension that the code of a module splits in several."""

    module: str
    labels: Vector


class ChannelFactor(NamedTuple):
    """The growth of a mean once channels are gone: (their number before / their number after) to a power."""

    labels: Vector
    power: float


@dataclass
class Record:
    """Everything that a trace collects."""

    space: LabelSpace
    integers: Callable[[str, int], list[str]]  # (module path, value) -> its attributes of that value that may be widths
    layer_norms: bool = False  # whether channels that a norm takes statistics over may go
    second_choice: frozenset[int] = frozenset()  # numbers of the splits that free their second factor
    splits: list[Split] = field(default_factory=list)  # every channel dimension that was split
    layers: list[RawLayer] = field(default_factory=list)
    norms: list[RawNorm] = field(default_factory=list)
    sizes: list[RawSize] = field(default_factory=list)
    dimensions: list[RawSize] = field(default_factory=list)  # labelled dimensions of results that were given sizes
    trail: OpTraceNotes = field(default_factory=OpTraceNotes)
    hidden: dict[str, Vector] = field(default_factory=dict)  # units of recurrent layers, by the module's path
    warnings: list[str] = field(default_factory=list)
    outputs: tuple[tuple[int, ...], ...] = ()
    data_dependent: bool = False
    weights: Mapping[int, torch.Tensor] = field(default_factory=dict)  # the model's floating-point tensors, by their id
    uses: Counter[int] = field(default_factory=Counter)  # id of a weight -> number of operators that compute with it
    folds: list[tuple[torch.Tensor, ChannelFactor]] = field(default_factory=list)  # weights that take factors

    def weight(self, tensor: object) -> torch.Tensor | None:
        """The weight that `tensor` is, or is a view of."""
        for each in (tensor, getattr(tensor, "_base", None)):
            if id(each) in self.weights:
                return self.weights[id(each)]
        return None

    def count_uses(self, tensors: Iterable[torch.Tensor]) -> None:
        """One more operator computes with these tensors."""
        found = (self.weight(tensor) for tensor in tensors)
        self.uses.update({id(weight) for weight in found if weight is not None})


@dataclass(frozen=True)
class Call:
    """One finished ATen call."""

    func: Any  # the operator
    name: str  # without namespace and overload: "convolution"
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    result: Any
    module: str  # path of the module whose forward is running
    record: Record

    @property
    def space(self) -> LabelSpace:
        """The labels of the whole trace."""
        return self.record.space

    @property
    def out(self) -> torch.Tensor:
        """The first tensor of the result."""
        first: torch.Tensor = self.result if isinstance(self.result, torch.Tensor) else self.result[0]
        return first

    @cached_property
    def outs(self) -> list[torch.Tensor]:
        """All tensors of the result."""
        return tensors_in([self.result])

    @cached_property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        return tensors_in((self.args, self.kwargs))

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def why(self, text: str) -> str:
        """A reason to freeze, with the place."""
        return f"{text} in {self.module or 'the model'}"

    def freeze(self, tensor: torch.Tensor, text: str, dims: Iterable[int] | None = None) -> None:
        """Freeze the labels of `tensor` along `dims` (all by default)."""
        axes = axes_of(tensor)
        for dim in axes if dims is None else dims:
            if dim in axes:
                self.space.freeze(axes[dim], self.why(text))

    def unite(self, left: Vector, right: Vector, text: str = "") -> None:
        """Couple labels pairwise; `text` explains the coupling in reports."""
        self.space.unite(left, right, self.why(text or f"{self.name} with something that is no channel"))

    def contract(self, left: torch.Tensor, dim: int, right: torch.Tensor, other: int) -> None:
        """Products summed over `dim` of `left` and `other` of `right`: a removed channel must add nothing."""
        a, b = axes_of(left).get(dim), axes_of(right).get(other)
        if (a is not None or follows(left, dim)) and (b is not None or follows(right, other)):
            if a is not None and b is not None:
                self.unite(a, b)
        else:
            self.join(a, b)
        if a is not None and has_offset(left) and has_offset(right):
            self.space.freeze(a, self.why(f"{self.name} over channels that stay nonzero without their layer"))

    def join(self, left: Vector | None, right: Vector | None) -> None:
        """Unite the two sides; a side without labels freezes the other."""
        if left is not None and right is not None:
            self.unite(left, right)
        elif left is not None or right is not None:
            alone = left if left is not None else right
            self.space.freeze(np.asarray(alone), self.why(f"{self.name} with something of fixed size"))


Rule = Callable[[Call], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, and for their in-place forms (a trailing underscore)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
            RULES[f"{name}_"] = function
        return function

    return register


def positive(dim: int, tensor: torch.Tensor) -> int:
    """`dim` counted from the front."""
    return dim % tensor.dim() if tensor.dim() else 0


def dims_of(value: int | Sequence[int] | None, tensor: torch.Tensor) -> list[int]:
    """The dimensions that a `dim` argument names: an int, a list, or None and [] for all."""
    dims = [value] if isinstance(value, int) else value
    return [positive(dim, tensor) for dim in dims] if dims else list(range(tensor.dim()))


def is_uniform(tensor: torch.Tensor) -> bool:
    """True if a tensor holds a single value."""
    return tensor.numel() <= 1 or marked_uniform(tensor)


def marked_uniform(tensor: torch.Tensor) -> bool:
    """True if a rule marked the tensor as holding one value throughout."""
    marked: bool = getattr(tensor, _UNIFORM, False)
    return marked


def set_uniform(tensor: torch.Tensor) -> None:
    """Mark a tensor as holding one value throughout."""
    setattr(tensor, _UNIFORM, True)


def keep_uniform(call: Call) -> None:
    """Parts and views of a uniform tensor are uniform."""
    if is_uniform(call.args[0]):
        for out in call.outs:
            set_uniform(out)


def has_offset(tensor: torch.Tensor) -> bool:
    """True if a removed channel of `tensor` leaves a value other than zero: a sum over channels misses it."""
    return bool(axes_of(tensor)) and getattr(tensor, _OFFSET, False)


def set_offset(tensor: torch.Tensor, offset: bool) -> None:
    """Mark a tensor whose removed channels leave a value other than zero."""
    setattr(tensor, _OFFSET, offset)


def follows(tensor: torch.Tensor, dim: int) -> bool:
    """True if a tensor without labels takes on any width along `dim`: it holds one value, or one spread over many."""
    return is_uniform(tensor) or (tensor.shape[dim] > 1 and tensor.stride(dim) == 0)


def set_spread(tensor: torch.Tensor, module: str) -> None:
    """Mark a tensor that the module at this path has spread over lengths that it was given."""
    setattr(tensor, _SPREAD, module)


def note_spread(call: Call, tensor: torch.Tensor, dim: int, labels: Vector) -> None:
    """The length of a spread dimension is a width, since the tensor meets channels there: it has to follow."""
    module = getattr(tensor, _SPREAD, None)
    if module is not None and tensor.stride(dim) == 0:
        call.record.dimensions.append(RawSize(module, len(labels), labels, dim))


def carry(call: Call, axes: Axes) -> None:
    """Give `axes` to the result."""
    set_axes(call.out, axes)


def note_size(call: Call, labels: Vector, position: int | None = None) -> None:
    """The call was given the length of `labels` as a size; an attribute of the module may hold it."""
    call.record.sizes.append(RawSize(call.module, len(labels), labels, position))


def note_dimensions(call: Call) -> None:
    """The call was given the size of each labelled dimension of its result, in order."""
    for dim, labels in axes_of(call.out).items():
        call.record.dimensions.append(RawSize(call.module, len(labels), labels, dim))
