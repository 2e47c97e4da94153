"""The integer program: which count each group keeps, so that most importance stays within a latency budget.

One binary variable says that a group keeps one of its counts. The price of a layer depends on its input and output
width, which are counts of two groups: a continuous variable for every pair of counts, whose sums over rows and columns
are the two groups' binaries, makes that price linear. (HALP, arXiv:2210.06659, prices layers by output width alone;
MDP, arXiv:2504.02168, multiplies the binaries of both sides.) Where concatenation makes a width a sum over many groups,
the pairs are points of a grid of widths, whose weighted mean is the width; only points on the lower convex hull of the
price are needed, as a cheapest mean never uses another. Residual blocks that may go are one more binary each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eightfold.compress.plan.latency.choices import WidthChoice
from eightfold.compress.plan.latency.prices import Prices
from eightfold.compress.plan.latency.rows import Rows
from eightfold.compress.plan.latency.widths import GroupWidth, NetworkLayer

GRID = 6  # points of a width that many groups make up
GAP = 0.005
SECONDS = 25.0  # to solve one program
FLAT = 0.002  # of a price: grid points that lie so near to a straight line are left out
Key = tuple[str, int]


@dataclass(frozen=True)
class BlockChoice:
    """A residual block that may go.

    Attributes:
        path: of its module.
        layers: names of its layers, which then cost nothing.
        value: change of importance where it goes; not positive.
    """

    path: str
    layers: frozenset[str]
    value: float


@dataclass(frozen=True)
class Solution:
    """Result of the program.

    Attributes:
        counts: group id -> channels that stay.
        importance: sum of the values of these counts.
        predicted_ms: latency by the prices.
        gap: relative distance to the best bound that was proven.
        seconds: time to solve.
        removed: paths of the residual blocks that go.
        proven: false where the time limit came first.
    """

    counts: dict[str, int]
    importance: float
    predicted_ms: float
    gap: float
    seconds: float
    removed: tuple[str, ...] = ()
    proven: bool = field(default=True)


def solve_program(
    choices: Sequence[WidthChoice],
    prices: Prices,
    budget_ms: float,
    *,
    blocks: Sequence[BlockChoice] = (),
    seconds: float = SECONDS,
) -> Solution | None:
    """The counts with the largest sum of values whose predicted latency is at most `budget_ms`; None if none is.

    Args:
        seconds: time limit; the best plan found by then counts, and its gap says how far it may be from the best.
    """
    start = time.perf_counter()
    program = _Program(choices, prices, blocks)
    found = program.rows.solve(program.objective, program.prices, budget_ms - program.constant, seconds, GAP)
    if found is None:
        return None
    counts, removed = program.read(found.values)
    importance = sum(choice.value_of(counts[choice.group]) for choice in choices if choice.group in counts)
    importance += sum(block.value for block in blocks if block.path in removed)
    predicted = float(found.values @ program.prices + program.constant)
    return Solution(counts, importance, predicted, found.gap, time.perf_counter() - start, removed, found.proven)


class _Program:
    """Variables and constraints in the making."""

    def __init__(self, choices: Sequence[WidthChoice], prices: Prices, blocks: Sequence[BlockChoice]) -> None:
        self._choices = {choice.group: choice for choice in choices}
        self._prices = prices
        self.rows = Rows()
        self.constant = prices.fit.constant
        self._cost: dict[int, float] = {}
        self._value: dict[int, float] = {}
        self._keeps = {choice.group: self._group(choice) for choice in choices}
        self._goes = {block.path: self._block(block) for block in blocks}
        home = {name: block.path for block in blocks for name in block.layers}
        for layer in prices.layers:
            self._price(layer, self._goes.get(home.get(layer.name, "")))

    @property
    def objective(self) -> np.ndarray:
        return self.rows.dense(self._value)

    @property
    def prices(self) -> np.ndarray:
        return self.rows.dense(self._cost)

    def read(self, values: np.ndarray) -> tuple[dict[str, int], tuple[str, ...]]:
        """Counts and removed blocks of a solution."""
        counts = {
            group: self._choices[group].counts[int(np.argmax(values[variables]))]
            for group, variables in self._keeps.items()
        }
        return counts, tuple(path for path, variable in self._goes.items() if values[variable] > 0.5)

    def _group(self, choice: WidthChoice) -> list[int]:
        variables = self.rows.variables(len(choice.counts), integer=True)
        self._value.update(zip(variables, choice.values, strict=True))
        self.rows.equal(dict.fromkeys(variables, 1.0), 1.0)
        return variables

    def _block(self, block: BlockChoice) -> int:
        (variable,) = self.rows.variables(1, integer=True)
        self._value[variable] = block.value
        return variable

    def _price(self, layer: NetworkLayer, goes: int | None) -> None:
        outputs = self._axis(layer.outputs)
        alone = not layer.shape.two_sided or layer.inputs == layer.outputs
        inputs = outputs if alone else self._axis(layer.inputs)
        if inputs is outputs or len(inputs.widths) == 1 or len(outputs.widths) == 1 or inputs.same(outputs):
            self._price_line(layer, inputs, outputs, goes)
        else:
            self._price_pairs(layer, inputs, outputs, goes)

    def _price_line(self, layer: NetworkLayer, inputs: _Axis, outputs: _Axis, goes: int | None) -> None:
        """A layer whose price follows one axis."""
        axis = outputs if len(outputs.widths) > 1 else inputs
        together = len(inputs.widths) > 1 and len(outputs.widths) > 1
        ms = [
            self._prices.of_layer(
                layer,
                inputs.widths[n] if together or axis is inputs else inputs.widths[0],
                outputs.widths[n] if together or axis is outputs else outputs.widths[0],
            )
            for n in range(len(axis.widths))
        ]
        if len(axis.widths) == 1 and goes is None:
            self.constant += ms[0]
            return
        if goes is None and axis.keeps is not None:
            for variable, price in zip(axis.keeps, ms, strict=True):
                self._cost[variable] = self._cost.get(variable, 0.0) + price
            return
        parts = self.rows.variables(len(ms))
        self._cost.update(zip(parts, ms, strict=True))
        self._bind({(n,): part for n, part in enumerate(parts)}, 0, axis, goes)

    def _price_pairs(self, layer: NetworkLayer, inputs: _Axis, outputs: _Axis, goes: int | None) -> None:
        ms = np.array([[self._prices.of_layer(layer, i, o) for o in outputs.widths] for i in inputs.widths])
        pairs = _needed(ms, inputs, outputs)
        parts: dict[tuple[int, ...], int] = dict(zip(pairs, self.rows.variables(len(pairs)), strict=True))
        self._cost.update((variable, float(ms[pair])) for pair, variable in parts.items())
        self._bind(parts, 0, inputs, goes)
        self._bind(parts, 1, outputs, goes)

    def _bind(self, parts: Mapping[tuple[int, ...], int], place: int, axis: _Axis, goes: int | None) -> None:
        """The sums of pair variables along one axis are what that axis keeps; nothing where the block goes."""
        if axis.keeps is not None:
            for n, keep in enumerate(axis.keeps):
                row = {variable: 1.0 for pair, variable in parts.items() if pair[place] == n}
                if goes is None:
                    self.rows.equal({**row, keep: -1.0}, 0.0)
                else:
                    self.rows.at_most({**row, keep: -1.0}, 0.0)
        total: dict[int, float] = dict.fromkeys(parts.values(), 1.0)
        if axis.keeps is None or goes is not None:
            self.rows.equal(total if goes is None else {**total, goes: 1.0}, 1.0)
        if axis.keeps is None and len(axis.widths) > 1:
            # Where the block goes, the pairs are zero and the width is anything.
            row = {variable: float(axis.widths[pair[place]]) for pair, variable in parts.items()}
            row |= {variable: -share for variable, share in axis.sum_of.items()}
            if goes is None:
                self.rows.equal(row, axis.fixed)
            else:
                self.rows.at_least({**row, goes: max(axis.widths)}, axis.fixed)

    def _axis(self, width: GroupWidth) -> _Axis:
        """A width as a group's counts, or as a grid where many groups make it up."""
        free = {group: share for group, share in width.groups.items() if len(self._counts(group)) > 1}
        fixed = width.fixed + sum(
            share * self._only(group, width) for group, share in width.groups.items() if group not in free
        )
        if not free:
            return _Axis((fixed,), None)
        if len(free) == 1:
            ((group, share),) = free.items()
            return _Axis(tuple(fixed + share * count for count in self._counts(group)), self._keeps[group])
        low = fixed + sum(share * min(self._counts(group)) for group, share in free.items())
        high = fixed + sum(share * max(self._counts(group)) for group, share in free.items())
        sums = {
            variable: share * count
            for group, share in free.items()
            for variable, count in zip(self._keeps[group], self._counts(group), strict=True)
        }
        return _Axis(tuple(np.linspace(low, high, GRID).tolist()), None, sums, fixed)

    def _counts(self, group: str) -> tuple[int, ...]:
        return self._choices[group].counts if group in self._choices else ()

    def _only(self, group: str, width: GroupWidth) -> int:
        """The count of a group that has no choice."""
        return self._counts(group)[0] if group in self._choices else width.full[group]


@dataclass(frozen=True)
class _Axis:
    """Widths that a layer's side may have.

    Attributes:
        keeps: the binary of each; None where the width is fixed, or a grid.
        sum_of: of a grid: binary -> what it adds to the width, beside `fixed`.
    """

    widths: tuple[float, ...]
    keeps: list[int] | None
    sum_of: Mapping[int, float] = field(default_factory=dict)
    fixed: float = 0.0

    def same(self, other: _Axis) -> bool:
        """True if both follow the same group, so that their widths move together."""
        return self.keeps is not None and self.keeps == other.keeps


def _needed(ms: np.ndarray, inputs: _Axis, outputs: _Axis) -> list[tuple[int, int]]:
    """The pairs that a cheapest mean can use: along a grid, those on the lower convex hull of the price."""
    lines: dict[tuple[int, int], None] = {}
    for o in range(len(outputs.widths)):
        for i in (
            range(len(inputs.widths)) if inputs.keeps is not None else lower_hull(inputs.widths, ms[:, o].tolist())
        ):
            lines[i, o] = None
    if outputs.keeps is None:
        return [
            (i, o)
            for i in range(len(inputs.widths))
            for o in lower_hull(outputs.widths, ms[i].tolist())
            if (i, o) in lines
        ]
    return list(lines)


def lower_hull(widths: Sequence[float], ms: Sequence[float]) -> list[int]:
    """Numbers of the points on the lower convex hull, give or take `FLAT` of a price.

    >>> lower_hull([0, 1, 2, 3], [0.0, 2.0, 2.0, 3.0])
    [0, 3]
    """
    hull: list[int] = []
    for n in range(len(widths)):
        while len(hull) > 1 and _above(widths, ms, hull[-2], n):
            hull.pop()
        hull.append(n)
    return hull


def _above(widths: Sequence[float], ms: Sequence[float], left: int, right: int) -> bool:
    """True if no point between two others lies below the line that joins them."""
    between = slice(left + 1, right)
    line = np.interp(widths[between], [widths[left], widths[right]], [ms[left], ms[right]])
    return bool(np.all(np.asarray(ms[between]) * (1 + FLAT) >= line))


def smallest(choices: Iterable[WidthChoice]) -> dict[str, int]:
    """The least counts of all groups."""
    return {choice.group: min(choice.counts) for choice in choices}
