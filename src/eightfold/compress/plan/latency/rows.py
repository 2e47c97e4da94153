"""Rows of a mixed-integer program, and HiGHS behind `scipy.optimize.milp`. The only module that imports the solver."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from eightfold.errors import BackendError
from eightfold.export.torch.suppress_logs import suppress_logs

TIME_OUT, INFEASIBLE = 1, 2


@dataclass(frozen=True)
class Optimum:
    """Values of the variables, the relative gap, and whether the time sufficed to close it."""

    values: np.ndarray
    gap: float
    proven: bool


@dataclass
class Rows:
    """Variables in [0, 1] and linear constraints."""

    integer: list[bool] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _columns: list[int] = field(default_factory=list)
    _entries: list[float] = field(default_factory=list)
    _low: list[float] = field(default_factory=list)
    _high: list[float] = field(default_factory=list)

    def variables(self, count: int, *, integer: bool = False) -> list[int]:
        """New variables in [0, 1]; returns their numbers."""
        first = len(self.integer)
        self.integer += [integer] * count
        return list(range(first, first + count))

    def equal(self, row: Mapping[int, float], value: float) -> None:
        """The sum over `row` of factor times variable is `value`."""
        self._add(row, value, value)

    def at_most(self, row: Mapping[int, float], value: float) -> None:
        """The sum is at most `value`."""
        self._add(row, -np.inf, value)

    def at_least(self, row: Mapping[int, float], value: float) -> None:
        """The sum is at least `value`."""
        self._add(row, value, np.inf)

    def _add(self, row: Mapping[int, float], low: float, high: float) -> None:
        self._rows += [len(self._low)] * len(row)
        self._columns += row
        self._entries += row.values()
        self._low.append(low)
        self._high.append(high)

    def dense(self, values: Mapping[int, float]) -> np.ndarray:
        """A vector over all variables."""
        found = np.zeros(len(self.integer))
        found[list(values)] = list(values.values())
        return found

    def solve(
        self, objective: np.ndarray, costs: np.ndarray, budgets: Sequence[float], seconds: float, gap: float
    ) -> Optimum | None:
        """The largest objective whose costs, [budgets, variables], are at most `budgets`; None where the constraints
        cannot all hold."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array, vstack

        shape = (len(self._low), len(self.integer))
        matrix = csr_array((self._entries, (self._rows, self._columns)), shape=shape)
        limits = LinearConstraint(
            vstack([matrix, csr_array(costs)]), [*self._low, *[-np.inf] * len(budgets)], [*self._high, *budgets]
        )
        with suppress_logs():
            found = milp(
                -objective,
                integrality=np.array(self.integer, dtype=int),
                bounds=Bounds(0, 1),
                constraints=limits,
                options={"time_limit": seconds, "mip_rel_gap": gap},
            )
            ctypes.CDLL(None).fflush(None)  # of lines that the solver prints for its own developers
        if found.x is None:
            if found.status == TIME_OUT:
                raise BackendError(
                    f"no plan within the budget was found in {seconds:g} seconds", remedy="give a larger budget"
                )
            return None
        return Optimum(found.x, float(found.mip_gap or 0.0), found.status != TIME_OUT)
