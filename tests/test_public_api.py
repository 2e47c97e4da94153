"""The public face is a list: every name in it can be imported, and has a docstring that teaches."""

from __future__ import annotations

import subprocess
import sys

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
