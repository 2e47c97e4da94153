"""`eightfold report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import BundlePath


def report(
    bundle: BundlePath,
    latency: Annotated[
        Path | None,
        typer.Option(help="Table by `eightfold bench --output`. Default: the bundle's."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
) -> None:
    """Write an HTML report of a bundle. It holds latency, accuracy and the steps of each artifact.

    Example: eightfold bench model.eightfold -o board.json; eightfold report model.eightfold --latency board.json
    """
    from eightfold.files import require_output
    from eightfold.runtime.bench.latency import LatencyTable
    from eightfold.runtime.bundle.bundle import Bundle
    from eightfold.runtime.report.report import write_report
    from eightfold.runtime.report.report_bundle import content_of_bundle

    require_output(output, reads=[bundle, latency])
    table = None if latency is None else LatencyTable.load(latency)
    print(f"wrote {write_report(output, content_of_bundle(Bundle.open(bundle), table))}")
