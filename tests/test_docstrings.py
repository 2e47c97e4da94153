"""Docstrings open with a noun or a verb, and public classes, functions and methods have one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "eightfold"
QUESTION = re.compile(r"(What|Which|Whether|How|Where|When|Who|Whose|Why)\b")
# Largest share of public definitions without a docstring.
MOST_WITHOUT = 0.05

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text(encoding="utf-8"))


def documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(name, docstring) of a module and everything defined in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "name", "module"), text


def public(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Definition]]:
    """(class, definition) of public definitions outside of functions; the class is "" at the top."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If | ast.Try):
            yield from public(child, inside)
        elif isinstance(child, Definition) and not child.name.startswith("_"):
            yield inside, child
            if isinstance(child, ast.ClassDef):
                yield from public(child, child.name)


class Classes:
    """Bases and documented methods of all classes, by name."""

    def __init__(self) -> None:
        self.bases: dict[str, set[str]] = {}
        self.methods: dict[str, set[str]] = {}
        for _, tree in trees():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    names = {part.id for base in node.bases for part in ast.walk(base) if isinstance(part, ast.Name)}
                    self.bases.setdefault(node.name, set()).update(names)
                    parts = [each for each in node.body if isinstance(each, Definition)]
                    found = {each.name for each in parts if ast.get_docstring(each)}
                    self.methods.setdefault(node.name, set()).update(found)

    def inherits(self, name: str, method: str) -> bool:
        """True if a base class documents the method, as `inspect.getdoc` finds it."""
        bases = self.bases.get(name, set()) - {name}
        return any(method in self.methods.get(base, set()) or self.inherits(base, method) for base in bases)


def is_registered(node: Definition) -> bool:
    """True for the functions that a decorator registers under the name of the operator they implement."""
    calls = (each for each in node.decorator_list if isinstance(each, ast.Call))
    return any(each.args and isinstance(each.args[0], ast.Constant) for each in calls)


def test_no_docstring_opens_with_a_question_word() -> None:
    found = [
        f"{path}: {name}: {text.splitlines()[0]}"
        for path, tree in trees()
        for name, text in documented(tree)
        if QUESTION.match(text)
    ]
    assert not found, "\n".join(found)


def test_public_definitions_have_a_docstring() -> None:
    classes, every, without = Classes(), 0, list[str]()
    for path, tree in trees():
        for inside, node in public(tree):
            every += 1
            excused = node.name == "forward" or classes.inherits(inside, node.name) or is_registered(node)
            if ast.get_docstring(node) is None and not excused:
                without.append(f"{path}: {inside}.{node.name}".replace(": .", ": "))
    assert len(without) <= MOST_WITHOUT * every, "\n".join(without)


@pytest.mark.parametrize("text", ["What it holds.", "Whether it fits.", "How to run."])
def test_question_words_are_seen(text: str) -> None:
    assert QUESTION.match(text)
    assert not QUESTION.match(f"Says {text.lower()}")
