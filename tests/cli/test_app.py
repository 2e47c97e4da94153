"""What the machine refuses is one line, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eightfold.__main__ import main as start
from eightfold.cli import app

OPEN = "eightfold.runtime.bundle.bundle.Bundle.open"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["eightfold", *arguments])
    return app.main()


def test_an_error_of_the_operating_system_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "report.html"))

    monkeypatch.setattr(OPEN, full)
    assert run(monkeypatch, "report", "bundle") == 1
    assert capsys.readouterr().err == f"eightfold: No space left on device: {tmp_path / 'report.html'}\n"


def test_a_copy_that_finds_no_room_is_named_by_its_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/source", None, "/card/target")

    monkeypatch.setattr(OPEN, full)
    assert run(monkeypatch, "report", "bundle") == 1
    assert capsys.readouterr().err == "eightfold: No space left on device: /card/target\n"


def test_an_empty_recipe_is_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").touch()
    assert run(monkeypatch, "run", str(tmp_path / "r.yaml")) == 2
    assert "r.yaml is empty; allowed: the keys name, output" in capsys.readouterr().err


def test_debug_shows_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPEN, lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        run(monkeypatch, "--debug", "report", "bundle")


def test_a_shell_can_complete_commands_and_options() -> None:
    words = [("compa", 1, "compare"), ("bench --back", 2, "--backend")]
    for typed, at, expected in words:
        asked = {"_EIGHTFOLD_COMPLETE": "complete_bash", "COMP_WORDS": f"eightfold {typed}", "COMP_CWORD": str(at)}
        done = subprocess.run(
            [sys.executable, "-m", "eightfold"], env=os.environ | asked, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected]


def test_help_loads_neither_numpy_nor_pydantic() -> None:
    """They take longer than all else that `eightfold --help` does."""
    code = "import sys, eightfold.cli.app; print(sorted({'numpy', 'pydantic', 'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_list_of_commands_says_whole_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(monkeypatch, "--help") == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert len(listed.splitlines()) == 1 + len(app.COMMANDS)
    assert "..." not in listed


def test_ctrl_c_while_the_command_line_loads_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Impatient:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "eightfold.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "eightfold.cli.app")
    monkeypatch.setattr("sys.meta_path", [Impatient, *sys.meta_path])
    with pytest.raises(SystemExit) as stopped:
        start()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "eightfold: interrupted\n"


def test_a_wrong_command_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "frobnicate") == 2
    assert "no such command 'frobnicate'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "interrupted_in", "said"),
    [
        (
            ("run", "r.yaml"),
            "pipeline.run.read_recipe",
            "eightfold: interrupted; run the same command again to go on\n",
        ),
        (("report", "bundle"), "runtime.bundle.bundle.Bundle.open", "eightfold: interrupted\n"),
    ],
)
def test_ctrl_c_says_how_to_go_on_where_that_helps(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    interrupted_in: str,
    said: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"eightfold.{interrupted_in}", interrupted)
    assert run(monkeypatch, *words) == 130
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("signal", "code", "said"),
    [(KeyboardInterrupt(), 130, "interrupted"), (SystemExit(143), 143, "terminated")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_that_became_another_error_is_still_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], signal: BaseException, code: int, said: str
) -> None:
    """Before 3.12, Python makes a RuntimeError of what is raised while a class sets the names of its members."""

    class Named:
        def __set_name__(self, *_: object) -> None:
            raise signal

    def opened(*_: object, **__: object) -> None:
        try:
            type("Outer", (), {"inner": Named()})
        except BaseException as error:
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.setattr("eightfold.runtime.bundle.bundle.Bundle.open", opened)
    assert run(monkeypatch, "report", "bundle") == code
    assert capsys.readouterr().err == f"eightfold: {said}\n"


def test_code_in_the_current_folder_is_found(tmp_path: Path) -> None:
    """A model of one's own is named as module:function, and its file lies where one works."""
    (tmp_path / "own_code.py").write_text("found = True\n")
    program = (
        "import sys; sys.path[:] = [place for place in sys.path if place]; sys.argv = ['eightfold', '--version']\n"
        "from eightfold.cli.app import main; main(); import own_code; assert own_code.found"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_warning_is_one_line_without_a_place_in_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = str(Path(app.__file__).parent / "x.py")
    app._show_warning("3 images were skipped", UserWarning, own, 7)
    app._show_warning("old name", DeprecationWarning, "/elsewhere/y.py", 8)
    assert capsys.readouterr().err == (
        "eightfold: warning: 3 images were skipped\n/elsewhere/y.py:8: DeprecationWarning: old name\n"
    )


def test_a_defect_is_one_line_that_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(OPEN, lambda _: 1 / 0)
    assert run(monkeypatch, "report", "bundle") == 1
    assert capsys.readouterr().err == (
        "eightfold: unexpected ZeroDivisionError: division by zero; this is a defect: "
        "report it with what `eightfold --debug ...` prints\n"
    )


def test_a_terminal_without_unicode_is_no_failure(tmp_path: Path) -> None:
    environment = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    program = (
        "import sys; sys.argv = ['eightfold', 'doctor']; from eightfold.runtime.doctor import doctor\n"
        "doctor.Diagnosis.describe = lambda self: '3.54\\u00d7'; doctor.sections = lambda: {'backends': ()}\n"
        "doctor._advice = lambda *_: []; from eightfold.cli.app import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3.54?\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("export", "x"), "missing option '--output' / '-o'; see: eightfold export --help"),
        (("bench", "b", "--frob"), "no such option: --frob; see: eightfold bench --help"),
        (("frobnicate",), "no such command 'frobnicate'; see: eightfold --help"),
    ],
)
def test_wrong_words_are_one_line(
    words: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *words) == 2
    assert capsys.readouterr().err == f"eightfold: {line}\n"


def test_no_words_are_a_question_for_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch) == 0
    assert "Commands:" in capsys.readouterr().out


def test_too_little_memory_is_no_defect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def too_large(_: object) -> None:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr(OPEN, too_large)
    assert run(monkeypatch, "report", "bundle") == 1
    assert capsys.readouterr().err == (
        "eightfold: out of memory (Unable to allocate 1 TiB); give a smaller batch or image size\n"
    )


@pytest.mark.parametrize("size", ["65537", "0", "2000000", "x", "12x", "1x2x3"])
def test_a_size_that_is_none(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "export", "resnet18", "-o", "made", "--size", size) == 2
    assert f"--size {size}; allowed: SIDE or HEIGHTxWIDTH" in capsys.readouterr().err


@pytest.mark.parametrize(
    "raised",
    [
        OSError(28, "No space left on device", "w.safetensors"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_no_defect_and_work_goes_on_later(
    raised: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("eightfold.pipeline.run.read_recipe", full)
    assert run(monkeypatch, "run", "r.yaml") == 1
    line = capsys.readouterr().err
    assert line.startswith("eightfold: No space left on device: ")
    assert line.endswith("; run the same command again to go on\n")
    assert "defect" not in line
