"""The wheel, built and installed into a clean environment: the command starts, and the extras are what pages name.

Tests marked `install` fetch packages from pip's index, with [all] some gigabytes; `make test-install` runs them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

from eightfold.extras import EXTRA_OF

ROOT = Path(__file__).parents[1]
EXTRAS = ("cpu", "images", "compress", "export", "timm", "ultralytics", "smp", "hf", "pycuda", "all")
BASE = ("numpy", "pydantic", "typer", "rich")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network: the build backend is the one installed here."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("eightfold-*.whl"))


@pytest.mark.slow
def test_the_metadata_names_every_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        files = archive.namelist()
    assert {*EXTRAS, *EXTRA_OF.values()} <= set(metadata.get_all("Provides-Extra") or [])
    needs = metadata.get_all("Requires-Dist") or []
    assert any("pycuda" in each and 'extra == "pycuda"' in each.replace("'", '"') for each in needs)
    assert "eightfold/runtime/report/report.html.j2" in files
    assert not any(each.startswith("tests/") for each in files)


@pytest.mark.slow
def test_the_base_install_starts_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """The base dependencies are those installed here, and nothing else can be imported."""
    import importlib.util

    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    homes = {Path(str(found.origin)).parents[1] for name in BASE if (found := importlib.util.find_spec(name))}
    program = (
        "import sys; from importlib.abc import MetaPathFinder\n"
        "class Absent(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx', 'cv2', 'onnxruntime', 'safetensors', 'scipy'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent()); sys.argv = ['eightfold', 'sources']\n"
        "import eightfold; from eightfold.cli.app import main; print(eightfold.__file__); sys.exit(main())\n"
    )
    environment = {"PYTHONPATH": ":".join([str(tmp_path / "site"), *map(str, sorted(homes))]), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(tmp_path / "site") in done.stdout
    assert "timm:NAME" in done.stdout


@pytest.mark.install
def test_cpu_and_images_predict_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """A classifier that adds up colours, on a red image."""
    cv2 = pytest.importorskip("cv2", reason="the extra [images] is not installed")
    from onnx import TensorProto, helper, save

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 3, 8, 8]), ("scores", [1, 3]))
    ]
    node = helper.make_node("ReduceMean", ["images"], ["scores"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph([node], "colours", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"names": "{0: 'red', 1: 'green', 2: 'blue'}"})
    save(model, tmp_path / "colours.onnx")
    cv2.imwrite(str(tmp_path / "image.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    python = clean_environment(tmp_path / "clean", wheel, "cpu,images")
    told = run(python, "-m", "eightfold", "predict", tmp_path / "colours.onnx", tmp_path / "image.png")
    assert re.search(r"image\.png: red ", told)
    assert "onnxruntime" in run(python, "-m", "eightfold", "doctor")
    with pytest.raises(AssertionError, match=r"pip install 'eightfold\[compress\]'"):
        run(python, "-m", "eightfold", "prune", "resnet18", "-o", tmp_path / "pruned")


@pytest.mark.install
def test_all_prunes_and_exports_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    python = clean_environment(tmp_path / "clean", wheel, "all")
    named = _extras_of_all(wheel)
    modules = sorted(module for module, extra in EXTRA_OF.items() if extra in named)
    run(python, "-c", f"import {', '.join(modules)}")
    source = ("timm:test_resnet", "--size", "32")
    run(python, "-m", "eightfold", "prune", *source, "-o", tmp_path / "pruned")
    run(python, "-m", "eightfold", "export", tmp_path / "pruned", "-o", tmp_path / "bundle")
    assert "pruned" in run(python, "-m", "eightfold", "inspect", tmp_path / "bundle")
    absent = subprocess.run([python, "-c", "import ultralytics"], capture_output=True, check=False)
    assert absent.returncode != 0  # AGPL-3.0: never part of [all]


def clean_environment(folder: Path, wheel: Path, extras: str) -> Path:
    """The Python of a new environment that holds the wheel with these extras, from pip's index."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", f"{wheel}[{extras}]"]
    # With PYTHONPATH, pip would take what lies there for installed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(pip, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return python


def run(python: Path, *words: str | Path) -> str:
    """What a command prints, run in a folder of nothing else, without variables that add packages."""
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(python.parents[2])}
    done = subprocess.run(
        [python, *words], env=environment, cwd=python.parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _extras_of_all(wheel: Path) -> set[str]:
    """The extras in `all = ["eightfold[...]"]`, as the metadata has them."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        needs = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    found = next(each for each in needs if each.startswith("eightfold[") and re.search(r"extra == .all.", each))
    return set(found.partition("[")[2].partition("]")[0].split(","))
