"""The public face is a list: every name in it can be imported, and has a docstring that teaches."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import eightfold

PUBLIC = sorted(set(eightfold.__all__) - {"__version__"})


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(eightfold, name).__doc__


def test_the_list_and_the_table_of_homes_agree() -> None:
    assert sorted(eightfold._HOME) == PUBLIC


def test_the_promised_names_are_there() -> None:
    promised = """trace plan_pruning apply_plan save_pruned load_pruned export_onnx simplify calibrate quantize
        build_engine Bundle Predictor bench run"""
    assert set(promised.split()) <= set(PUBLIC)


def _homes(module: str) -> dict[str, str]:
    """Name -> the module that it is imported from, those for types alone included."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {each.name: str(node.module) for node in found for each in node.names}


def _taken(function: Callable[..., Any]) -> set[str]:
    """Names of eightfold's classes among the types of a function's parameters."""
    homes, classes = _homes(function.__module__), set()
    for parameter in inspect.signature(function).parameters.values():
        for name in re.findall(r"\b[A-Z]\w+", str(parameter.annotation)):
            home = importlib.import_module(homes.get(name, function.__module__))
            kind = getattr(home, name, None)
            if inspect.isclass(kind) and kind.__module__.startswith("eightfold."):
                classes.add(name)
    return classes


@pytest.mark.parametrize("name", PUBLIC)
def test_what_a_function_asks_for_can_be_imported_beside_it(name: str) -> None:
    function = getattr(eightfold, name)
    if inspect.isfunction(function):
        assert _taken(function) <= set(PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prune_everything'"):
        eightfold.prune_everything  # noqa: B018  # the access is what is tested


def test_importing_eightfold_imports_nothing_heavy() -> None:
    program = (
        "import sys, eightfold, eightfold.cli.app\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'scipy', 'matplotlib', 'openvino'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
