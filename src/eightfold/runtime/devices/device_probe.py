"""The only door through which device facts come in: files under a root and short commands.

Tests give a recorded tree as root and recorded answers as commands; everything else reads the machine itself.
A fact that cannot be read is None, never a guess.
"""

from __future__ import annotations

import math
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

COMMAND_TIMEOUT_S = 10.0


def run_command(command: Sequence[str]) -> str | None:
    """Standard output of a command, or None when it is absent, fails or does not end in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def finite(word: str) -> float | None:
    """The number that a word spells; None for '[N/A]', 'nan' and their like."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class DeviceProbe:
    """Sources of device facts."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], str | None] = run_command
    machine: str = platform.machine()

    def text(self, path: str) -> str | None:
        """A file's text without surrounding blanks and NULs (device-tree strings end in one), or None."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
        except OSError:  # absent, not permitted, or a sensor that is switched off
            return None

    def number(self, path: str) -> float | None:
        """The first number in a file, or None where there is none."""
        words = (self.text(path) or "").split()
        return finite(words[0]) if words else None

    def paths(self, pattern: str) -> list[str]:
        """Paths below the root that match a glob pattern, in order."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))

    def exists(self, path: str) -> bool:
        """True if the path exists below the root."""
        return (self.root / path).exists()
