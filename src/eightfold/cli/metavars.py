"""The words for values in help texts: `--batch N`, whatever version of typer writes them."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer.core
from typer.models import OptionInfo

WORDS: dict[type, str] = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


def with_metavars(function: Callable[..., Any]) -> Callable[..., Any]:
    """Name the kind of value of each option of a command.

    By default typer shows the Python type, such as `<list[int]>`. Choices are shown by their names.
    """
    hints = get_type_hints(function, include_extras=True)
    for hint in hints.values():
        value, *described = get_args(hint) or (hint,)
        for info in described:
            if isinstance(info, OptionInfo) and info.metavar is None:
                info.metavar = WORDS.get(_plain(value))
    function.__annotations__ = hints  # typer would evaluate strings anew
    return function


class Command(typer.core.TyperCommand):
    """A command whose arguments are shown without Python's name for their type, which newer versions of typer add."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            choice = getattr(getattr(parameter, "type_descriptor", None), "is_choice", False)
            if parameter.param_type_name == "argument" and hasattr(parameter, "display_type") and not choice:
                setattr(parameter, "display_type", lambda _: "")  # noqa: B010  # older versions do not know it


def _plain(value: Any) -> Any:
    """The type of one value: `int` for `list[int] | None`."""
    if get_origin(value) in (Union, types.UnionType):
        value = next(each for each in get_args(value) if each is not type(None))
    return get_args(value)[0] if get_origin(value) is list else value
