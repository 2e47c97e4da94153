"""The base install in an empty environment: everything imports, help and doctor work, what is missing is one line.

The package is built from a copy of the sources, because a build in the tree would leave files there and could pick up
stale ones.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("eightfold", "eightfold.runtime", "eightfold.calib", "eightfold.export", "eightfold.cli")
HEAVY = ("torch", "onnx", "onnxruntime", "cv2", "matplotlib", "jinja2", "scipy", "yaml", "openvino")
IMPORT_EVERYTHING = f"""
import importlib, pkgutil, sys
count = 0
for package in {PACKAGES}:
    found = importlib.import_module(package)
    walk = pkgutil.walk_packages if package != "eightfold" else pkgutil.iter_modules
    for module in walk(found.__path__, package + "."):
        # A child program runs when it is imported, and is never imported by the package.
        if not module.name.rpartition(".")[2].startswith("__"):
            importlib.import_module(module.name)
            count += 1
print(count, *sorted(set(sys.modules) & set({HEAVY})))
"""


class Environment:
    """An interpreter that knows the base install alone."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.work = folder / "venv" / "bin", folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
        self.environ = {**kept, "PYTHONNOUSERSITE": "1", "COLUMNS": "120"}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(
            program, capture_output=True, text=True, env=self.environ, cwd=self.work, check=False, timeout=120
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-c", textwrap.dedent(code))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("base")
    sources = folder / "sources"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "build-*", "third_party")
    shutil.copytree(ROOT / "src", sources / "src", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    (sources / "README.md").touch()  # its text changes nothing that is installed
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(venv), "install", "--quiet"]
    done = subprocess.run([*pip, str(sources)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(sources)
    return Environment(folder)


def test_every_module_that_a_device_needs_imports(base: Environment) -> None:
    done = base.python(IMPORT_EVERYTHING)
    assert done.returncode == 0, done.stderr
    count, *heavy = done.stdout.split()
    assert int(count) > 60
    assert heavy == []


EVERY_HELP = """
import contextlib, io, sys
from eightfold.cli.app import COMMANDS, main
for command in COMMANDS:
    sys.argv = ["eightfold", command, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            code = main()
        except SystemExit as error:
            code = error.code
    print(command, code or 0, "Usage" in said.getvalue())
"""


def test_help_of_every_command(base: Environment) -> None:
    done = base.run("eightfold", "--help")
    assert done.returncode == 0, done.stderr
    helped = base.python(EVERY_HELP)
    assert helped.returncode == 0, helped.stderr
    lines = helped.stdout.splitlines()
    assert len(lines) > 20
    for line in lines:
        command, code, usage = line.split()
        assert command in done.stdout
        assert (code, usage) == ("0", "True"), command


def test_doctor_tells_what_to_install(base: Environment) -> None:
    done = base.run("eightfold", "doctor")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "missing onnxruntime pip install 'eightfold[cpu]'" in lines
    assert "missing jinja2 pip install 'eightfold[report]'" in lines
    assert not any(line.startswith("broken") for line in lines)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import eightfold as ef; from eightfold.runtime.report.report_content import ReportContent\n"
            "ef.write_report('r.html', ReportContent(title='t'))",
            "jinja2 is not installed, and is needed to write a report; run: pip install 'eightfold[report]'",
        ),
        (
            "from eightfold.export.simplify.simplify import simplify; simplify('model.onnx')",
            "run: pip install 'eightfold[export]'",
        ),
    ],
)
def test_a_missing_extra_is_one_line_with_the_pip_command(base: Environment, code: str, line: str) -> None:
    done = base.python(code)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith(line), done.stderr


MAKE_BUNDLE = """
from pathlib import Path
from eightfold.calib.images.preprocess import Preprocess
from eightfold.runtime.bundle.bundle_names import manifest_digest_line
from eightfold.runtime.bundle.manifest import Manifest, Task
task = Task(kind="tensors", decode="tensors")
text = Manifest(name="x", task=task, preprocess=Preprocess(height=8, width=8), artifacts=(), files={}).to_json()
Path("bundle").mkdir()
Path("bundle/manifest.json").write_text(text)
Path("bundle/manifest.sha256").write_text(manifest_digest_line(text.encode()))
"""


def test_a_missing_extra_on_the_command_line(base: Environment) -> None:
    assert base.python(MAKE_BUNDLE).returncode == 0
    assert base.run("eightfold", "inspect", "bundle").returncode == 0
    done = base.run("eightfold", "report", "bundle")
    assert done.returncode == 1
    assert done.stderr == (
        "eightfold: jinja2 is not installed, and is needed to write a report; run: pip install 'eightfold[report]'\n"
    )
    assert not (base.work / "report.html").exists()


@pytest.mark.parametrize("command", ["inspect resnet18", "prune resnet18 -o pruned", "export resnet18 -o made"])
def test_what_needs_torch_says_so(base: Environment, command: str) -> None:
    done = base.run("eightfold", *command.split())
    assert done.returncode == 1
    assert re.search("torch(vision)? is not installed, and is needed to", done.stderr)
    assert done.stderr.endswith("; run: pip install 'eightfold[compress]'\n")


def test_the_wheel_holds_what_is_not_python(base: Environment) -> None:
    done = base.python(
        """
        from importlib import resources
        for package, name in [("eightfold", "py.typed"), ("eightfold.runtime.report", "report.html.j2")]:
            assert (resources.files(package) / name).is_file(), name
        """
    )
    assert done.returncode == 0, done.stderr
