"""The wheel, built and installed into a clean environment: the command starts, and the extras are what pages name."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

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
    assert set(EXTRAS) <= set(metadata.get_all("Provides-Extra") or [])
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
