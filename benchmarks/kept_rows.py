"""Rows of a long benchmark, kept in a file, one JSON object a line, so that an interrupted run goes on behind them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eightfold.files import sha256_of_bytes, write_text

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


class TimedRows:
    """Rows by name in one file of JSON, each with the CPU seconds that it took. They count whatever the code is now."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else {}

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The row of that name, made where it is missing."""
        if name not in self.rows:
            begun = time.process_time()
            self.rows[name] = make() | {"cpu_s": round(time.process_time() - begun, 1)}
            write_text(self.file, json.dumps(self.rows, indent=1) + "\n")
            print(self.file.parent.name, name, self.rows[name], flush=True)
        return self.rows[name]

    def lines(self, before: str = "") -> list[str]:
        """Lines of a Markdown table: name and figures, behind the cells `before`."""
        return [
            f"|{before} {name} | "
            + ", ".join(f"{key} {value:.2f}" for key, value in row.items() if key != "cpu_s")
            + f", {row['cpu_s']:.0f} s |"
            for name, row in self.rows.items()
        ]
