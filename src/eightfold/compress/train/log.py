"""The log of a training run as CSV, and for TensorBoard as well; its plot: losses over steps, and each check."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eightfold.errors import one_of
from eightfold.extras import require
from eightfold.files import atomic_path, write_text

CHECK = "check"
LogKind = Literal["csv", "tensorboard"]
LOG_KINDS: tuple[LogKind, ...] = ("csv", "tensorboard")
Row = Mapping[str, float]


@dataclass
class Log:
    """Rows of numbers by column; the columns are those of all rows, in order of appearance.

    Attributes:
        path: the CSV file; None: rows are kept in memory only.
    """

    path: Path | None = None
    rows: list[Row] = field(default_factory=list)

    def resume(self, step: int) -> None:
        """Read what an earlier run wrote, up to and with `step`; later rows were never in a checkpoint."""
        if self.path is not None and self.path.is_file():
            self.rows = [row for row in read_log(self.path) if row["step"] <= step]

    def add(self, row: Row) -> None:
        """Append a row."""
        self.rows.append(row)

    def write(self) -> None:
        """Write all rows as CSV, whole or not at all."""
        if self.path is not None:
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            lines = [",".join(columns)]
            lines += [",".join(f"{row[name]:.9g}" if name in row else "" for name in columns) for row in self.rows]
            write_text(self.path, "\n".join(lines) + "\n")


@dataclass
class TensorBoardLog(Log):
    """A log whose rows also become scalars in a folder that TensorBoard reads.

    A resumed run purges what came behind its checkpoint, and a new one what an older one left.
    """

    folder: Path = Path("tensorboard")
    _written: int = 0
    _purge: int = 0
    _writer: Any = None

    def __post_init__(self) -> None:
        require("tensorboard", "write a log for TensorBoard")

    def resume(self, step: int) -> None:
        super().resume(step)
        self._written, self._purge = len(self.rows), step + 1

    def write(self) -> None:
        super().write()
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge)
        for row in self.rows[self._written :]:
            for name, value in row.items():
                if name not in ("step", "seconds"):
                    self._writer.add_scalar(name, value, int(row["step"]))
        self._written = len(self.rows)
        self._writer.flush()


def log_beside(output: Path, kind: str) -> Log:
    """The log of a training whose result is `output`: OUTPUT.log.csv, and OUTPUT.tensorboard where that is asked for.

    Raises:
        UsageError: a kind that does not exist.
        MissingExtraError: TensorBoard is not installed.
    """
    path = output.absolute()
    csv_path = path.with_name(f"{path.name}.log.csv")
    if one_of("log", kind, LOG_KINDS) == "csv":
        return Log(csv_path)
    return TensorBoardLog(csv_path, folder=path.with_name(f"{path.name}.tensorboard"))


def read_log(path: Path) -> list[Row]:
    """The rows of a CSV log."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(stream)]


def plot_log(rows: Sequence[Row], output: Path, *, check: str = CHECK) -> Path:
    """Draw the losses on a logarithmic axis, and below them the value of each check. `output`: .svg or .png."""
    figure_of = require("matplotlib.figure", "draw plots").Figure
    figure = figure_of(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    names = dict.fromkeys(name for row in rows for name in row if name not in ("step", "seconds", "rate", CHECK))
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        above.plot(*zip(*points, strict=True), label=name, linewidth=1)
    above.set(yscale="log", ylabel="loss")
    if names:
        above.legend(frameon=False)
    points = [(row["step"], row[CHECK]) for row in rows if CHECK in row]
    if points:
        below.plot(*zip(*points, strict=True), marker="o", markersize=3)
    below.set(xlabel="step", ylabel=check)
    with atomic_path(output) as temporary:
        figure.savefig(temporary)
    return output
