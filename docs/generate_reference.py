"""Writes the reference pages from the commands, the public names and the recipe themselves. `make docs` runs it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import eightfold
from eightfold.cli.app import app
from eightfold.recipe import Recipe

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate_reference.py: `make docs` writes it anew. -->\n"


def command_page() -> str:
    """The reference of the command line, as Markdown."""
    group: Any = typer.main.get_command(app)
    lines = [NOTE, "# The command line", "", group.help, ""]
    lines += ["```", "eightfold [--version] [--debug] COMMAND ...", "```", ""]
    lines += [
        "Exit codes: 0 for success, 1 for a failure, 2 for wrong usage, 130 when interrupted, 143 when terminated. An",
        "error is one line that says what was seen, what is allowed and what to do; `--debug` before the command shows",
        "the traceback.",
        "",
        "Everything a command does is one call of the [Python API](python.md).",
        "",
        "Tables fit into the terminal, or into 80 columns where there is none; `COLUMNS=200` before the command makes",
        "room. `eightfold --install-completion` teaches your shell to complete commands and options.",
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
        if paragraph.startswith(">>>"):
            lines += ["```python", *paragraph.splitlines(), "```", ""]
            continue
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
        if issubclass(value, BaseModel) and any(field.description for field in value.model_fields.values()):
            lines += [*_keys(value.model_fields), ""]
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
    # The place of a function in memory is another one each time.
    shown = "..." if inspect.isfunction(parameter.default) else repr(parameter.default)
    default = "" if parameter.default is parameter.empty else f" = {shown}"
    return f"{stars}{parameter.name}: {parameter.annotation}{default}"


def recipe_page() -> str:
    """The reference of recipes, as Markdown: every key with its kind, default and meaning."""
    lines = [
        NOTE,
        "# Recipes",
        "",
        "A recipe is a YAML file that says what `eightfold run` is to do. The recipes of the",
    ]
    lines += [
        "repository's folder `recipes/` are commented examples; [Detectors](detectors.md) explains theirs. An unknown",
        "key or value is refused with its name.",
        "",
        "A relative path in a recipe starts from the current directory, not from the recipe's folder: the recipes of",
        "the repository are run from its root. The `recipe.yaml` that `eightfold compress` writes holds paths from the",
        "root of the file system, so that it runs from any directory. `model.code` is the folder of your own modules.",
        "The spelling of a path does not count: a run continues where the content of the files is the same. Reports",
        "and bundles quote the names of files without their folders.",
        "",
    ]
    top = {name: field for name, field in Recipe.model_fields.items() if not _section_of(field)}
    lines += ["## At the top", "", *_keys(top), ""]
    for name, field in Recipe.model_fields.items():
        lines += _section(name, field, level=2)
    return "\n".join(lines)


def _section(name: str, field: FieldInfo, level: int) -> list[str]:
    section = _section_of(field)
    if section is None:
        return []
    needed = "" if field.is_required() else " It may be left out."
    own = section.__doc__ if "__doc__" in vars(section) else ""
    lines = [f"{'#' * level} `{name}`", "", *_paragraphs((own or "") + needed), *_keys(section.model_fields), ""]
    for inner, each in section.model_fields.items():
        lines += _section(f"{name}.{inner}", each, level + 1)
    return lines


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _keys(fields: Mapping[str, FieldInfo]) -> list[str]:
    rows = [
        f"| `{name}` | {_kind(field.annotation)} | {_default(field)} | {_cell(field.description or '')} |"
        for name, field in fields.items()
        if _section_of(field) is None
    ]
    return ["| key | kind | default | |", "|---|---|---|---|", *rows]


def _kind(annotation: Any) -> str:
    """The values that a key may have, in words."""
    names = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "nothing",
        dict: "map",
        Mapping: "map",
        Path: "path",
    }
    inner = [each for each in get_args(annotation) if each is not ...]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if get_origin(annotation) in (tuple, list):
        return "list of: " + _kind(inner[0])
    if inner and get_origin(annotation) not in (dict, Mapping):
        return " or ".join(_kind(each) for each in inner)
    return names.get(get_origin(annotation) or annotation, "see the example")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{list(value) if isinstance(value, tuple) else value}`"


def pages() -> dict[Path, str]:
    return {HERE / "cli.md": command_page(), HERE / "python.md": python_page(), HERE / "recipes.md": recipe_page()}


def main() -> int:
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
