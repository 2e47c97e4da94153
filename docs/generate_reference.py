"""Writes `docs/cli.md` and `docs/python.md` from the commands and the public names themselves. `make docs` runs it."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

import eightfold
from eightfold.cli.app import app

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate_reference.py: `make docs` writes it anew. -->\n"


def command_page() -> str:
    """The reference of the command line, as Markdown."""
    group: Any = typer.main.get_command(app)
    lines = [NOTE, "# The command line", "", group.help, ""]
    lines += ["```", "eightfold [--version] [--debug] COMMAND ...", "```", ""]
    lines += [
        "Exit codes: 0 for success, 1 for a failure, 2 for wrong usage, 130 when interrupted. An error is one line",
        "that says what was seen, what is allowed and what to do; `--debug` before the command shows the traceback.",
        "",
        "Everything a command does is one call of the [Python API](python.md).",
        "",
    ]
    for name, command in sorted(group.commands.items()):
        lines += _command(name, command)
    return "\n".join(lines)


def _command(name: str, command: Any) -> list[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = ["eightfold", name, *map(_usage, arguments), *(["[OPTIONS]"] if options else [])]
    lines = [f"## `eightfold {name}`", "", "```", " ".join(usage), "```", "", *_paragraphs(command.help)]
    if arguments or options:
        lines += ["| | default | |", "|---|---|---|", *map(_row, [*arguments, *options]), ""]
    return lines


def _usage(argument: Any) -> str:
    many = "..." if argument.nargs == -1 else ""
    return f"{argument.name.upper()}{many}" if argument.required else f"[{argument.name.upper()}{many}]"


def _row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{parameter.name.upper()}`"
    default = "" if parameter.default in (None, False) or parameter.required else f"`{parameter.default}`"
    return f"| {names} | {default} | {_cell(parameter.help or '')} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _paragraphs(text: str | None) -> list[str]:
    """The docstring, whose examples become code."""
    lines: list[str] = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        one = " ".join(paragraph.split())
        example = one.removeprefix("Example: ")
        lines += [one, ""] if example == one else ["For example:", "", "```", *example.split("; "), "```", ""]
    return lines


def python_page() -> str:
    """The reference of the public names, as Markdown: signature and docstring of each."""
    lines = [NOTE, "# The Python API", "", "```python", "import eightfold as ef", "```", ""]
    lines += ["Every name is imported when it is first used. Paths are `str | Path`; shapes and units are stated.", ""]
    for name in sorted(set(eightfold.__all__) - {"__version__"}, key=str.lower):
        lines += _public(name, getattr(eightfold, name))
    return "\n".join(lines)


def _public(name: str, value: Any) -> list[str]:
    lines = [f"## `ef.{name}`", ""]
    if inspect.isfunction(value):
        lines += ["```python", f"{name}{_signature(value)}", "```", ""]
    docstring = inspect.getdoc(value) or ""
    lines += ["```text", docstring, "```", ""] if docstring else []
    if inspect.isclass(value):
        methods = [each for each in vars(value) if not each.startswith("_") and _is_method(vars(value)[each])]
        lines += ["Methods: " + ", ".join(f"`{each}`" for each in methods) + ".", ""] if methods else []
    return lines


def _is_method(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, classmethod | staticmethod)


def _signature(function: Any) -> str:
    """With annotations as they were written, one parameter a line where it would be long."""
    signature = inspect.signature(function)
    parameters = list(map(_parameter, signature.parameters.values()))
    keyword_only = [each.kind is each.KEYWORD_ONLY for each in signature.parameters.values()]
    if True in keyword_only:
        parameters.insert(keyword_only.index(True), "*")
    result = f" -> {signature.return_annotation}"
    short = f"({', '.join(parameters)}){result}"
    return short if len(short) < 90 else "(\n" + "".join(f"    {each},\n" for each in parameters) + f"){result}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {parameter.annotation}{default}"


def pages() -> dict[Path, str]:
    return {HERE / "cli.md": command_page(), HERE / "python.md": python_page()}


def main() -> int:
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
