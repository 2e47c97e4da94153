"""The integer program: which count each group keeps, so that most importance stays within a latency budget.

One binary variable says that a group keeps one of its counts. The price of a layer depends on its input and output
width, which are counts of two groups: a continuous variable for every pair of counts, whose sums over rows and columns
are the two groups' binaries, makes that price linear. (HALP, arXiv:2210.06659, prices layers by output width alone;
MDP, arXiv:2504.02168, multiplies the binaries of both sides.) Where concatenation makes a width a sum over many groups,
the pairs are points of a grid of widths, whose weighted mean is the width; only points on the lower convex hull of the
price are needed, as a cheapest mean never uses another. Residual blocks that may go are one more binary each, and so
is the precision of a layer that may be INT8 or float, whose pairs are there twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eightfold.compress.plan.latency.axis import WidthAxis, needed_points
from eightfold.compress.plan.latency.choices import BlockChoice, WidthChoice
from eightfold.compress.plan.latency.prices import LayerPrices, Mixed, PriceLimit
from eightfold.compress.plan.latency.rows import Rows
from eightfold.compress.plan.latency.widths import GroupWidth, NetworkLayer

GRID = 6  # points of a width that many groups make up
GAP = 0.005
SECONDS = 45.0  # to solve one program


@dataclass(frozen=True)
class Solution:
    """Result of the program.

    Attributes:
        counts: group id -> channels that stay.
        importance: sum of the values of these counts, of the blocks that go, and of the damage of layers in INT8.
        predicted_ms: latency by the prices.
        gap: relative distance to the best bound that was proven.
        seconds: time to solve.
        removed: paths of the residual blocks that go.
        proven: false where the time limit came first.
        keep_float: names of the layers that stay in float where others are INT8.
        further: of each further limit, what the plan takes.
    """

    counts: dict[str, int]
    importance: float
    predicted_ms: float
    gap: float
    seconds: float
    removed: tuple[str, ...] = ()
    proven: bool = True
    keep_float: tuple[str, ...] = ()
    further: tuple[float, ...] = ()


def solve_program(
    choices: Sequence[WidthChoice],
    prices: LayerPrices,
    budget_ms: float,
    *,
    further: Sequence[PriceLimit] = (),
    mixed: Mixed | None = None,
    blocks: Sequence[BlockChoice] = (),
    seconds: float = SECONDS,
) -> Solution | None:
    """The counts with the largest sum of values whose predicted latency is at most `budget_ms`; None if none is.

    Args:
        further: limits that hold as well, of the same layers.
        mixed: layers of which the program chooses the precision; `prices` are those in INT8.
        seconds: time limit; the best plan found by then counts, and its gap says how far it may be from the best.
    """
    start = time.perf_counter()
    limits = (PriceLimit(prices, budget_ms, mixed.floats if mixed else None), *further)
    program = _Program(choices, limits, blocks, {} if mixed is None else mixed.damage)
    rooms = [limit.most - constant for limit, constant in zip(limits, program.constants, strict=True)]
    found = program.rows.solve(program.objective, program.costs, rooms, seconds, GAP)
    if found is None:
        return None
    counts, removed, keep_float = program.read(found.values)
    importance = float(program.objective @ found.values) + sum(program.damage.values())
    first, *others = (program.costs @ found.values + program.constants).tolist()
    took = time.perf_counter() - start
    return Solution(counts, importance, first, found.gap, took, removed, found.proven, keep_float, tuple(others))


class _Program:
    """Variables and constraints in the making."""

    def __init__(
        self,
        choices: Sequence[WidthChoice],
        limits: Sequence[PriceLimit],
        blocks: Sequence[BlockChoice] = (),
        damage: Mapping[str, float] | None = None,
    ) -> None:
        self._choices = {choice.group: choice for choice in choices}
        self._limits = limits
        self.damage = dict(damage or {})
        self.rows = Rows()
        self.constants = [limit.prices.constant for limit in limits]
        self._costs: list[dict[int, float]] = [{} for _ in limits]
        self._value: dict[int, float] = {}
        self._keeps = {choice.group: self._group(choice) for choice in choices}
        self._goes = {block.path: self._block(block) for block in blocks}
        self._floats: dict[str, int] = {}
        home = {name: block.path for block in blocks for name in block.layers}
        for layer in limits[0].prices.layers:
            self._price(layer, self._goes.get(home.get(layer.name, "")))

    @property
    def objective(self) -> np.ndarray:
        return self.rows.dense(self._value)

    @property
    def costs(self) -> np.ndarray:
        """[limits, variables]."""
        return np.array([self.rows.dense(costs) for costs in self._costs])

    def read(self, values: np.ndarray) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
        """Counts, removed blocks, and layers in float of a solution."""
        counts = {
            group: self._choices[group].counts[int(np.argmax(values[variables]))]
            for group, variables in self._keeps.items()
        }
        removed = tuple(path for path, variable in self._goes.items() if values[variable] > 0.5)
        return counts, removed, tuple(name for name, variable in self._floats.items() if values[variable] > 0.5)

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
            axis = outputs if len(outputs.widths) > 1 else inputs
            together = len(inputs.widths) > 1 and len(outputs.widths) > 1
            points: list[tuple[int, ...]] = [(n,) for n in range(len(axis.widths))]
            widths = [
                (
                    inputs.widths[n if together or axis is inputs else 0],
                    outputs.widths[n if together or axis is outputs else 0],
                )
                for (n,) in points
            ]
            self._add(layer, (axis,), points, widths, goes)
        else:
            points = [(i, o) for i in range(len(inputs.widths)) for o in range(len(outputs.widths))]
            widths = [(inputs.widths[i], outputs.widths[o]) for i, o in points]
            self._add(layer, (inputs, outputs), points, widths, goes)

    def _add(
        self,
        layer: NetworkLayer,
        axes: tuple[WidthAxis, ...],
        points: list[tuple[int, ...]],
        widths: list[tuple[float, float]],
        goes: int | None,
    ) -> None:
        """A layer whose price follows its axes, in each precision that it may have."""
        ms = np.array(
            [[[source.of_layer(layer, *each) for each in widths] for source in form] for form in self._forms(layer)]
        )
        choice = len(ms) > 1
        if goes is None and not choice and len(axes) == 1 and self._add_alone(axes[0], ms[0]):
            return
        needed = range(len(points)) if len(axes) == 1 else needed_points(ms.reshape(-1, len(points)), points, *axes)
        parts = {(*points[n], form): n for form in range(len(ms)) for n in needed}
        variables = dict(zip(parts, self.rows.variables(len(parts)), strict=True))
        for part, n in parts.items():
            for costs, price in zip(self._costs, ms[part[-1], :, n], strict=True):
                costs[variables[part]] = float(price)
        for place, axis in enumerate(axes):
            self._bind(variables, place, axis, goes)
        if choice:
            (stays,) = self.rows.variables(1, integer=True)
            self._floats[layer.name] = stays
            self._value[stays] = -self.damage[layer.name]
            if goes is not None:  # where the block goes, there is nothing to damage
                self._value[goes] -= self.damage[layer.name]
            self.rows.equal({**{v: 1.0 for part, v in variables.items() if part[-1]}, stays: -1.0}, 0.0)

    def _forms(self, layer: NetworkLayer) -> list[list[LayerPrices]]:
        """Prices under each limit, in INT8 or the one precision, and in float where the layer may stay so."""
        forms = [[limit.prices for limit in self._limits]]
        if layer.name in self.damage:
            forms.append([limit.floats or limit.prices for limit in self._limits])
        return forms

    def _add_alone(self, axis: WidthAxis, ms: np.ndarray) -> bool:
        """Add the price to a constant, or to the binaries of one group; False where it needs variables."""
        if len(axis.widths) == 1:
            self.constants = [total + float(price[0]) for total, price in zip(self.constants, ms, strict=True)]
            return True
        if axis.keeps is None:
            return False
        for costs, line in zip(self._costs, ms, strict=True):
            for variable, price in zip(axis.keeps, line, strict=True):
                costs[variable] = costs.get(variable, 0.0) + float(price)
        return True

    def _bind(self, parts: Mapping[tuple[int, ...], int], place: int, axis: WidthAxis, goes: int | None) -> None:
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

    def _axis(self, width: GroupWidth) -> WidthAxis:
        """A width as a group's counts, or as a grid where many groups make it up."""
        free = {group: share for group, share in width.groups.items() if len(self._counts(group)) > 1}
        fixed = width.fixed + sum(
            share * self._only(group, width) for group, share in width.groups.items() if group not in free
        )
        if not free:
            return WidthAxis((fixed,), None)
        if len(free) == 1:
            ((group, share),) = free.items()
            return WidthAxis(tuple(fixed + share * count for count in self._counts(group)), self._keeps[group])
        low = fixed + sum(share * min(self._counts(group)) for group, share in free.items())
        high = fixed + sum(share * max(self._counts(group)) for group, share in free.items())
        sums = {
            variable: share * count
            for group, share in free.items()
            for variable, count in zip(self._keeps[group], self._counts(group), strict=True)
        }
        return WidthAxis(tuple(np.linspace(low, high, GRID).tolist()), None, sums, fixed)

    def _counts(self, group: str) -> tuple[int, ...]:
        return self._choices[group].counts if group in self._choices else ()

    def _only(self, group: str, width: GroupWidth) -> int:
        """The count of a group that has no choice."""
        return self._counts(group)[0] if group in self._choices else width.full[group]
