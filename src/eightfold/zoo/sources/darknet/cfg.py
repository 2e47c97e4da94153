"""Reader and writer of Darknet cfg files. Every value keeps its line, so that an error can point to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from eightfold.errors import ModelError, why_unread
from eightfold.files import PathLike
from eightfold.zoo.sources.darknet.keys import ALIASES, KEYS, NETWORK, REFUSED


@dataclass(frozen=True)
class Option:
    """`key=value` on one line."""

    key: str
    value: str
    line: int


@dataclass(frozen=True)
class Section:
    """`[name]` and its options. `index` counts layers as Darknet does: from 0, without the network's own section."""

    file: str
    name: str
    line: int
    index: int
    options: tuple[Option, ...]

    def error(self, seen: str, *, key: str = "", allowed: str = "", remedy: str = "") -> ModelError:
        """An error that begins with the file and the line of `key`, or of the section."""
        line = next((option.line for option in self.options if option.key == key), self.line)
        return ModelError(f"{self.file}:{line}: {seen}", allowed=allowed, remedy=remedy)

    def has(self, key: str) -> bool:
        return any(option.key == key for option in self.options)

    def text(self, key: str, default: str) -> str:
        """The value of `key`; of several, the first, as Darknet reads them."""
        return next((option.value for option in self.options if option.key == key), default)

    def integer(self, key: str, default: int, *, least: int = 0) -> int:
        value = self.number(key, default)
        if value != int(value) or value < least:
            raise self.error(f"{key}={self.text(key, '')}", key=key, allowed=f"an integer of {least} or more")
        return int(value)

    def number(self, key: str, default: float) -> float:
        return self._numbers(key, [default])[0]

    def integers(self, key: str, default: Iterable[int] = ()) -> tuple[int, ...]:
        values = self._numbers(key, list(default))
        if any(value != int(value) for value in values):
            raise self.error(f"{key}={self.text(key, '')}", key=key, allowed="integers with commas between them")
        return tuple(int(value) for value in values)

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(self._numbers(key, []))

    def _numbers(self, key: str, default: list[float] | list[int]) -> list[float]:
        text = self.text(key, "")
        if not self.has(key):
            return [float(value) for value in default]
        try:
            values = [float(part) for part in text.rstrip(",").split(",")]
            if not all(abs(value) < float("inf") for value in values):
                raise ValueError
        except ValueError:
            raise self.error(f"{key}={text}", key=key, allowed="numbers with commas between them") from None
        return values

    def with_values(self, **values: str | int) -> Section:
        """The section with these values; a key that it has not got is added at its end."""
        options = [
            replace(option, value=str(values[option.key])) if option.key in values else option
            for option in self.options
        ]
        new = [Option(key, str(value), self.line) for key, value in values.items() if not self.has(key)]
        return replace(self, options=(*options, *new))

    def render(self) -> str:
        return "\n".join([f"[{self.name}]", *(f"{option.key}={option.value}" for option in self.options)])


@dataclass(frozen=True)
class Cfg:
    """A network as its cfg file describes it."""

    file: str
    net: Section
    layers: tuple[Section, ...]

    def render(self) -> str:
        return "\n\n".join(section.render() for section in (self.net, *self.layers)) + "\n"


def read_cfg(path: PathLike) -> Cfg:
    """Read a cfg file.

    Raises:
        ModelError: it cannot be read; a section or key that is unknown or not supported, with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read {path}: {why_unread(error)}", allowed="a Darknet cfg file") from None
    return parse_cfg(text, str(path))


def parse_cfg(text: str, file: str) -> Cfg:
    """The network that `text` describes; `file` is the name for messages. Raises as `read_cfg`."""
    sections = _sections(text, file)
    if not sections or sections[0].name not in NETWORK:
        first = f"{file}:{sections[0].line}: [{sections[0].name}] comes first" if sections else f"{file} is empty"
        raise ModelError(first, allowed="[net] as the first section, then its layers")
    if len(sections) == 1:
        raise ModelError(f"{file} has no layers", allowed="one section for each layer after [net]")
    for section in sections[1:]:
        _check(section)
    return Cfg(file, sections[0], tuple(sections[1:]))


def _sections(text: str, file: str) -> list[Section]:
    sections: list[Section] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.split())  # Darknet drops every blank, within a line as well
        if line.startswith("["):
            sections.append(Section(file, _name(line, file, number), number, len(sections) - 1, ()))
        elif line and line[0] not in "#;":
            _add(sections, line.partition("#")[0], file, number)
    return sections


def _name(line: str, file: str, number: int) -> str:
    name, bracket, _ = line[1:].partition("]")
    if not bracket:
        raise ModelError(f"{file}:{number}: {line!r}", allowed="[section]", remedy="close the bracket")
    return ALIASES.get(name, name)


def _add(sections: list[Section], line: str, file: str, number: int) -> None:
    key, equals, value = line.partition("=")
    if not equals or not key or not value:
        raise ModelError(f"{file}:{number}: {line!r}", allowed="[section], key=value, or a comment behind #")
    if not sections:
        raise ModelError(f"{file}:{number}: {line!r} before any section", allowed="[net] as the first section")
    last = sections[-1]
    sections[-1] = replace(last, options=(*last.options, Option(key, value, number)))


def _check(section: Section) -> None:
    if section.name not in KEYS:
        close = difflib.get_close_matches(section.name, KEYS, n=1)
        raise section.error(
            f"unknown section [{section.name}]",
            allowed=", ".join(KEYS),
            remedy=f"did you mean [{close[0]}]?" if close else "such a layer cannot be built here",
        )
    for option in section.options:
        if option.key not in KEYS[section.name]:
            raise _unknown_key(section, option.key)
        if option.key in REFUSED and section.number(option.key, 0) != REFUSED[option.key]:
            raise section.error(
                f"{option.key}={option.value} in [{section.name}]",
                key=option.key,
                allowed=f"{option.key}={REFUSED[option.key]}",
                remedy="this variant of the layer cannot be built here",
            )


def _unknown_key(section: Section, key: str) -> ModelError:
    known = KEYS[section.name]
    close = difflib.get_close_matches(key, known, n=1)
    return section.error(
        f"unknown key {key!r} in [{section.name}]",
        key=key,
        allowed=", ".join(sorted(known)) or "no keys",
        remedy=f"did you mean {close[0]!r}?" if close else "remove the line",
    )
