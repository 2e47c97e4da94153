"""Checkpoints of a calibration, from which the same call resumes: numbers in an .npz file, no pickle."""

from __future__ import annotations

import contextlib
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eightfold.arrays import Array
from eightfold.calib.images.data_reader import DataReader
from eightfold.calib.images.image_set import ImageSet
from eightfold.calib.observers import Observer
from eightfold.errors import UsageError
from eightfold.files import PathLike, atomic_path

EVERY_S = 10.0


@contextlib.contextmanager
def kept_in(
    path: PathLike | None,
    identity: str,
    rows: DataReader,
    observers: Mapping[str, Observer],
    *,
    every_s: float = EVERY_S,
) -> Iterator[Callable[[], None]]:
    """Restore `rows` and `observers` from the file if it has this `identity`; yield what to call after each batch.

    The file is written between batches, every `every_s` seconds, and removed when the body ends without an error. A
    file with another identity, or damaged, is ignored and replaced.

    Raises:
        UsageError: the images are a stream that cannot be opened again.
    """
    if path is None:
        yield lambda: None
        return
    if not isinstance(rows.images, ImageSet):
        raise UsageError("a checkpoint with a stream of images", allowed="a set that can be opened again")
    state = _State(Path(path), identity, rows, observers, every_s)
    state.restore()
    yield state.save_now_and_then
    state.path.unlink(missing_ok=True)


@dataclass
class _State:
    path: Path
    identity: str
    rows: DataReader
    observers: Mapping[str, Observer]
    every_s: float
    saved: float = 0.0

    def __post_init__(self) -> None:
        self.saved = time.monotonic()

    def save_now_and_then(self) -> None:
        """Call between batches: every row that was delivered has been shown to every observer."""
        if time.monotonic() - self.saved >= self.every_s:
            self.save()
            self.saved = time.monotonic()

    def save(self) -> None:
        tally = self.rows.tally
        arrays: dict[str, Any] = {f"observer {name}": observer.state() for name, observer in self.observers.items()}
        with atomic_path(self.path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                identity=np.array(self.identity),
                counts=np.array([tally.used, tally.skipped]),
                reason=np.array(tally.first_reason),
                chain=np.frombuffer(tally.chain, np.uint8),
                distinct=np.frombuffer(b"".join(sorted(tally.distinct)), np.uint8),
                **arrays,
            )

    def restore(self) -> None:
        absent_or_damaged = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
        with contextlib.suppress(*absent_or_damaged), np.load(self.path, allow_pickle=False) as stored:
            self._restore(dict(stored))

    def _restore(self, stored: dict[str, Array]) -> None:
        if str(stored["identity"]) != self.identity:
            return
        states = {name: stored[f"observer {name}"] for name in self.observers}
        tally = self.rows.tally
        tally.used, tally.skipped = stored["counts"].tolist()
        tally.first_reason, tally.chain = str(stored["reason"]), stored["chain"].tobytes()
        tally.distinct.update(row.tobytes() for row in stored["distinct"].reshape(-1, 32))
        for name, state in states.items():
            self.observers[name].restore(state)
