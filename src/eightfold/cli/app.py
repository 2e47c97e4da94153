"""The command line: one file per sub-command, listed here. Errors become one line and an exit code, here only."""

from __future__ import annotations

import errno
import importlib
import io
import itertools
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

import eightfold
from eightfold.cli.metavars import Command, with_metavars
from eightfold.cli.signals import TERMINATED, exit_on_signals
from eightfold.compress.train.processes import LOST_A_PEER, OURS, lost_a_peer
from eightfold.errors import EightfoldError
from eightfold.extras import EXTRA_OF, installed

# Exit code -> what is said where somebody ended the work.
INTERRUPTED = 130
STOPPED = {INTERRUPTED: "interrupted"} | dict.fromkeys(TERMINATED, "terminated")
COMPLETION = "_EIGHTFOLD_COMPLETE"  # set by the shell that asks for completions, which end by exit()
NO_SPACE = os.strerror(errno.ENOSPC)
# What typer raises where the words of a command are wrong. It has no public name in all the versions that we take.
TyperUsageError: type[Exception] = typer.BadParameter.__bases__[0]
# Sub-command -> the folder of eightfold.cli whose module defines a function of the same name ('-' becomes '_').
COMMANDS: dict[str, str] = {
    "run": "pipeline",
    "compress": "pipeline",
    "bench": "runtime",
    "export": "export",
    "simplify": "export",
    "calibrate": "calib",
    "quantize": "export",
    "debug-int8": "export",
    "half": "export",
    "build": "export",
    "refit": "export",
    "add-engine": "export",
    "compare": "export",
    "pack": "runtime",
    "evaluate": "pipeline",
    "sign": "export",
    "triton": "export",
    "verify": "runtime",
    "doctor": "runtime",
    "sources": "compress",
    "inspect": "compress",
    "profile": "compress",
    "prune": "compress",
    "recover": "compress",
    "plan": "compress",
    "train": "train",
    "sparsify": "train",
    "finetune": "train",
    "distill": "train",
    "qat": "train",
    "iterate": "train",
    "sensitivity": "train",
    "predict": "runtime",
    "report": "runtime",
}
# Commands that go on where they were interrupted.
RESUMABLE = frozenset(
    {
        *("run", "compress", "calibrate", "quantize", "recover", "profile"),
        *("train", "sparsify", "finetune", "distill", "qat", "iterate", "sensitivity"),
    }
)

app = typer.Typer(
    help="Compress vision networks for edge devices, and prove what was done.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"eightfold {eightfold.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command. `main` reads `--debug` itself, because it handles errors after this returns."""


for name, folder in COMMANDS.items():
    function = name.replace("-", "_")
    module = importlib.import_module(f"eightfold.cli.{folder}.{function}")
    app.command(name, cls=Command)(with_metavars(getattr(module, function)))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings are for users: one line without a place in the code. Others keep their form."""
    own = Path(filename).is_relative_to(Path(eightfold.__file__).parent) and category.__name__ != "DeprecationWarning"
    text = (
        f"eightfold: warning: {message}\n" if own else warnings.formatwarning(message, category, filename, lineno, line)
    )
    (file or sys.stderr).write(text)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, EightfoldError):
        return str(error)
    if isinstance(error, OSError):  # no permission, no space, a name too long: the machine said what a user needs
        # Of a copy or a renaming the second is what was to be written.
        return f"{error.strerror or error}: {error.filename2 or error.filename or 'no file named'}"
    if NO_SPACE in str(error):  # of a library that has errors of its own
        return f"{NO_SPACE}: {' '.join(str(error).split())[:200]}; make room"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); give a smaller batch or image size" if str(error) else "out of memory"
    missing = error.name.partition(".")[0] if isinstance(error, ModuleNotFoundError) and error.name else ""
    if missing in EXTRA_OF and not installed(missing):
        return f"{missing} is not installed, and is needed for this; run: pip install 'eightfold[{EXTRA_OF[missing]}]'"
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"unexpected {what}; this is a defect: report it with what `eightfold --debug ...` prints"


def _wrong_words(error: Any) -> str:
    """One line for typer's multi-line messages: a missing or unknown option, a value that is no number ..."""
    said = " ".join(error.format_message().rstrip(".").split())
    command = error.ctx.command_path if error.ctx else "eightfold"
    return f"{said[:1].lower()}{said[1:]}; see: {command} --help"


def _way_on(words: list[str]) -> str:
    return "; run the same command again to go on" if RESUMABLE.intersection(words[:2]) else ""


def _stopped_by(error: BaseException | None) -> int | None:
    """The exit code where a library or Python itself made another error of a signal, as for Ctrl-C in a class body."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(error, SystemExit) and error.code in STOPPED:
            return int(error.code or 0)
        error = error.__cause__ or error.__context__
    return None


def main() -> int:
    """Run the command line. Returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 when interrupted, 143
    when terminated."""
    if "" not in sys.path:  # so that package.module:function finds the user's own code here, as with python -m
        sys.path.append("")
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with exit_on_signals():
            done = app(sys.argv[1:] or ["--help"], prog_name="eightfold", standalone_mode=False)
        code = done if isinstance(done, int) else 0
    except SystemExit as stop:  # a signal, or the reader of a pipe has gone; neither is a success
        code = stop.code if isinstance(stop.code, int) else 0
        if code == 0 and COMPLETION not in os.environ:
            said = f" ({stop.code})" if isinstance(stop.code, str) else ""
            print(
                f"eightfold: the network's code called exit(){said} while it ran; allowed: code that returns",
                file=sys.stderr,
            )
            return 1
    except TyperUsageError as error:
        print(f"eightfold: {_wrong_words(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # the outermost edge: what gets here ends as one line
        if (stopped := _stopped_by(error)) is not None:
            print(f"eightfold: {STOPPED[stopped]}{_way_on(sys.argv[1:])}", file=sys.stderr)
            return stopped
        if "--debug" in itertools.takewhile(lambda word: word.startswith("-"), sys.argv[1:]):
            raise
        if OURS in os.environ and lost_a_peer(error):
            return LOST_A_PEER  # the process that started this one says which has gone
        way_on = _way_on(sys.argv[1:]) if NO_SPACE in str(error) else ""
        print(f"eightfold: {_in_one_line(error)}{way_on}", file=sys.stderr)
        return error.exit_code if isinstance(error, EightfoldError) else 1
    if code in STOPPED and OURS not in os.environ:  # typer turns Ctrl-C into 130, without a word
        print(f"eightfold: {STOPPED[code]}{_way_on(sys.argv[1:])}", file=sys.stderr)
    return code
