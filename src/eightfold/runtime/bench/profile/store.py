"""The cache of measured points: one file of JSON lines per device, back end version, precision and threads.

The first line holds the settings. Every further line is one point, written in one go, so that a process killed at any
time leaves whole lines, and at most one torn one at the end, which is cut off when the file is next opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import ValidationError

from eightfold.errors import BackendError
from eightfold.files import sha256_of_bytes
from eightfold.runtime.backends.cache_folder import cache_folder
from eightfold.runtime.bench.profile.layer_shape import LayerShape
from eightfold.runtime.bench.profile.settings import ProfileSettings, require_same
from eightfold.runtime.bench.profile.width_table import Widths

FORMAT = "eightfold layer profile 1"
REFERENCE = "reference"  # the line of the point that tells how fast the machine was when the file was begun


class ProfileStore:
    """Points on disk; without a path, in memory only. `echo` gets every line that is added."""

    def __init__(
        self, settings: ProfileSettings, path: Path | None, *, echo: Callable[[str], object] | None = None
    ) -> None:
        self.settings, self.path, self._echo = settings, path, echo
        self.points: dict[LayerShape, dict[Widths, float]] = {}
        self.reference_ms: float | None = None
        if path is not None and path.exists():
            self._read(path)

    def add(self, points: Iterable[tuple[LayerShape, Widths, float]]) -> None:
        """Keep measured points, in memory and on disk."""
        found = list(points)
        for shape, widths, ms in found:
            self.points.setdefault(shape, {})[widths] = ms
        self._append(
            {"shape": shape.model_dump(exclude_defaults=True), "widths": widths, "ms": ms}
            for shape, widths, ms in found
        )

    def set_reference(self, ms: float) -> None:
        """Keep the time of the reference layer, to which later times are scaled."""
        self.reference_ms = ms
        self._append([{REFERENCE: ms}])

    def _append(self, lines: Iterable[object]) -> None:
        made = [json.dumps(line, separators=(",", ":")) for line in lines]
        for line in made if self._echo is not None else ():
            self._echo(line)  # type: ignore[misc]  # it is not None
        if self.path is None:
            return
        text = "".join(line + "\n" for line in made)
        if not self.path.exists():
            text = header_line(self.settings) + "\n" + text
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)

    def _read(self, path: Path) -> None:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a process was killed while it wrote
            os.truncate(path, len(whole.encode()))
        lines = whole.splitlines()
        if not lines:
            path.unlink()
            return
        require_same(self.settings, _settings(lines[0], str(path)), str(path))
        for number, line in enumerate(lines[1:], start=2):
            self._take(line, path, number)

    def _take(self, line: str, path: Path, number: int) -> None:
        try:
            data = json.loads(line)
            if REFERENCE in data:
                self.reference_ms = float(data[REFERENCE])
                return
            shape = LayerShape.model_validate(data["shape"])
            first, second = data["widths"]
            self.points.setdefault(shape, {})[int(first), int(second)] = float(data["ms"])
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"line {number} of {path} is no point of a profile ({type(error).__name__})",
                remedy=f"delete that line or the file: rm {path}",
            ) from None


def _settings(line: str, source: str) -> ProfileSettings:
    try:
        data = json.loads(line)
        if data.pop("format", None) != FORMAT:
            raise ValueError(line)
        return ProfileSettings.model_validate(data)
    except (ValueError, AttributeError, ValidationError):
        raise BackendError(
            f"{source} is no layer profile", allowed="a file that eightfold profile wrote", remedy="name another file"
        ) from None


def header_line(settings: ProfileSettings) -> str:
    """The first line of a file."""
    return json.dumps({"format": FORMAT, **settings.model_dump()})


def settings_of(path: Path) -> ProfileSettings:
    """The settings of a file. Raises BackendError where it is none."""
    with path.open(errors="replace") as file:
        return settings_in(file.readline(), str(path))


def settings_in(line: str, source: str) -> ProfileSettings:
    """The settings in the first line of a file. Raises BackendError where there are none."""
    return _settings(line, source)


def default_store(settings: ProfileSettings) -> ProfileStore:
    """The store in the user's cache folder, which all networks share."""
    folder = cache_folder("profiles")
    name = sha256_of_bytes(settings.model_dump_json().encode())[:16]
    return ProfileStore(settings, None if folder is None else folder / f"{settings.backend}-{name}.jsonl")
