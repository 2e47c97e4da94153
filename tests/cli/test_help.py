"""Help texts of every command name values in one way, and no type of Python's."""

from __future__ import annotations

import re

import pytest
import typer.main
from typer.testing import CliRunner

from eightfold.cli.app import COMMANDS, app

ODD = re.compile(r"<(?:list|dict|tuple|class)|PurePath|\[default: \(|\bNone\b|<(?:int|str|float)(?: range)?>")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_names_no_type_of_python(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert not ODD.findall(shown.output)


def test_every_option_with_a_value_has_a_word_for_it() -> None:
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]  # a group
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                assert parameter.metavar or "|" in str(parameter.display_type(None)), (command.name, parameter.name)


def test_help_of_an_option_is_one_short_sentence() -> None:
    """At most 70 characters each."""
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]  # a group
        long = [each.help for each in command.params if len(getattr(each, "help", None) or "") > 70]
        assert not long, command.name
