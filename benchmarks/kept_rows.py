"""Rows of a long benchmark, kept in a file, one JSON object a line, so that an interrupted run goes on behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eightfold.files import sha256_of_bytes

SOURCE = Path(__file__).parent.parent / "src" / "eightfold"


EXPORTING = (SOURCE / "calib", SOURCE / "export")


def code_state(folders: Sequence[Path] = EXPORTING) -> str:
    """Changes with any line of code in the folders: by default the packages that calibrate and export."""
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    return sha256_of_bytes(b"".join(file.read_bytes() for file in files))[:12]


class KeptRows:
    """Rows by name, each with the state of the code that made it."""

    def __init__(self, path: Path | None, *, any_code: bool = False, code_in: Sequence[Path] = EXPORTING) -> None:
        """Without a path nothing is kept; with `any_code` rows count that another state of the code made.

        `code_in` are the folders whose code decides the rows.
        """
        self.path, self.code = path, code_state(code_in)
        lines = path.read_text().splitlines() if path and path.exists() else []
        found = [json.loads(line) for line in lines]
        self.rows: dict[str, dict[str, Any]] = {
            row["name"]: row["row"] for row in found if any_code or row["code"] == self.code
        }
        self.old = {row["name"] for row in found if row["code"] != self.code} - {
            row["name"] for row in found if row["code"] == self.code
        }

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row
        self.old.discard(name)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as stream:
                stream.write(json.dumps({"name": name, "code": self.code, "row": row}) + "\n")
