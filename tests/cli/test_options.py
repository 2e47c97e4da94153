"""What sub-commands share."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

PRINTED = "from eightfold.cli.options import terminal_width; print(terminal_width())"


@pytest.mark.parametrize(("columns", "width"), [({}, "None"), ({"COLUMNS": "72"}, "72")])
def test_a_pipe_takes_lines_of_any_length(columns: dict[str, str], width: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"} | columns
    done = subprocess.run(
        [sys.executable, "-c", PRINTED], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.stdout.strip() == width


@pytest.mark.parametrize(("columns", "width"), [(93, b"93"), (0, b"None")])
def test_a_terminal_says_how_wide_it_is(columns: int, width: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        subprocess.run([sys.executable, "-c", PRINTED], env=environment, stdout=theirs, check=True)
        assert os.read(ours, 100).strip() == width
    finally:
        os.close(ours)
        os.close(theirs)
