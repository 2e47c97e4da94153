"""Compare the file sizes of networks in INT8 and in FP32.

Usage: python benchmarks/int8_sizes.py [NAME ...] [--rows FILE] [--output FILE] [--any-code]
NAME: as in `coverage_names.txt`, all of which are taken by default, the smallest first. Finished rows are kept in
build/, and a run goes on behind those that the same code gave (`--any-code`: any code). The table is written anew after
each network, and says how many are left.

Each network has random weights and is calibrated on one random image: only the sizes count. Ratios are those of the
target cpu-x86 in Q/DQ form, whose weights are stored in INT8. A network that cannot be exported or quantized stands in
the table with its error.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from coverage import HERE
from kept_rows import KeptRows
from onnx_exports import build_network

import eightfold as ef
from eightfold.errors import EightfoldError

TARGET = "cpu-x86"


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Sizes in bytes of both files, the weights beside them included, or the error."""
    try:
        model, image = build_network(name)
        size = (int(image.shape[-2]), int(image.shape[-1]))
        float_path = ef.export_onnx(model, folder / "fp32" / "model.onnx", batch=1, image_size=size)
        ranges = ef.calibrate(float_path, iter(image.numpy()), None, method="minmax", batch=1)
        written, report = ef.quantize(float_path, ranges, folder / "int8" / "model.onnx", target=TARGET, form="qdq")
        return {"fp32": _bytes(float_path), "int8": _bytes(Path(written)), "layers": len(report.quantized)}
    except (EightfoldError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]:.110}"}


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def by_size(names: Iterable[str]) -> list[str]:
    """The smallest networks first, by the parameters in the page of coverage."""
    cells = [line.split("|") for line in (HERE.parent / "docs" / "coverage.md").read_text().splitlines()]
    sizes = {row[1].strip(): float(row[3]) for row in cells if len(row) == 12 and row[3].strip()[:1].isdigit()}
    return sorted(names, key=lambda name: sizes.get(name, 0.0))


def table(rows: dict[str, dict[str, Any]], left: int = 0) -> str:
    """The page."""
    sized = {name: row["int8"] / row["fp32"] for name, row in rows.items() if "fp32" in row}
    larger = [name for name, ratio in sized.items() if ratio >= 1]
    lines = [
        "# Sizes of INT8 files",
        "",
        f"{len(sized) - len(larger)} of {len(sized)} INT8 files ({TARGET}, Q/DQ) are smaller than their FP32 files; "
        f"{len(rows) - len(sized)} networks of the list give none"
        + (f", and {left} have not been measured yet" if left else "")
        + ". Made by `python benchmarks/int8_sizes.py`.",
        "",
        "| network | FP32 (MB) | INT8 (MB) | INT8 / FP32 | layers in INT8 |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items(), key=lambda item: -sized.get(item[0], 9.0)):
        if "error" in row:
            lines.append(f"| {name} | {row['error'].replace('|', '/')} | | | |")
        else:
            lines.append(
                f"| {name} | {row['fp32'] / 1e6:.2f} | {row['int8'] / 1e6:.2f} | {sized[name]:.3f} | {row['layers']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--rows", type=Path, default=HERE.parent / "build" / "int8_sizes.jsonl")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "int8_sizes.md")
    parser.add_argument("--any-code", action="store_true", help="take kept rows that other code gave, too")
    arguments = parser.parse_args()
    names = arguments.names or by_size((HERE / "coverage_names.txt").read_text().split())
    kept = KeptRows(arguments.rows, any_code=arguments.any_code)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in names:
        if name not in kept.rows:
            with tempfile.TemporaryDirectory() as folder:
                for part in ("fp32", "int8"):
                    (Path(folder) / part).mkdir()
                kept.add(name, measure(name, Path(folder)))
            gc.collect()
            print(name, kept.rows[name], flush=True)
        done = {each: kept.rows[each] for each in names if each in kept.rows}
        arguments.output.write_text(table(done, len(names) - len(done)))


if __name__ == "__main__":
    main()
