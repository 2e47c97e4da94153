"""`eightfold predict`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import PublicKey, image_size
from eightfold.errors import ImageError

if TYPE_CHECKING:
    from eightfold.runtime.bundle.sizes import Size


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle (directory or .eightfold file) or an .onnx file.")],
    sources: Annotated[
        list[str], typer.Argument(help="Image files, folders, video files, camera numbers or stream addresses.")
    ],
    json: Annotated[Path | None, typer.Option(help="Also write one JSON object per picture to this file.")] = None,
    save: Annotated[Path | None, typer.Option(help="Also write annotated pictures to this folder.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--class", help="Report only objects of this class; repeat for more.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of pictures.")] = None,
    backend: Annotated[str, typer.Option(help="onnxruntime, openvino, tensorrt, tensorrt-rtx or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8 or auto.")] = "auto",
    batch: Annotated[int | None, typer.Option(help="Use only this batch size.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Image size, SIDE or HEIGHTxWIDTH, of a bundle that has several.")
    ] = None,
    variant: Annotated[str, typer.Option(help="pruned, baseline, ... or auto.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: the backend's own choice.")] = None,
    key: PublicKey = None,
) -> None:
    """Run a bundle on pictures and print one line for each.

    Files that cannot be read are named at the end, and the exit code is 1.

    Example: eightfold predict runs/demo/bundle digit.png
    """
    from eightfold.files import require_output
    from eightfold.runtime.predict.predict_sources import predict_sources
    from eightfold.runtime.predict.predictor import Predictor

    require_output(json, reads=[bundle, key, *sources])
    wanted = None if size is None else image_size(size)
    with (
        _fixed(bundle, wanted) as (path, wanted),
        Predictor(
            path,
            backend,
            precision,
            batch,
            size=wanted,
            variant=variant,
            threads=threads,
            key=key,
            classes=tuple(only or ()),
        ) as predictor,
    ):
        typer.echo(predictor.describe(), err=True)
        skipped: list[ImageError] = []
        answered = 0
        for prediction in predict_sources(
            predictor, sources, json_lines=json, annotated=save, limit=limit, unreadable=skipped.append
        ):
            answered += 1
            print(prediction, flush=True)
    _tell(skipped, answered)


@contextlib.contextmanager
def _fixed(path: Path, size: Size | None) -> Iterator[tuple[Path, Size | None]]:
    """The bundle and the size to ask it for; an ONNX file with dynamic axes is fixed first, at that size."""
    from eightfold.pipeline.dynamic_files import fixed_file, is_dynamic
    from eightfold.scratch import scratch_folder

    if not is_dynamic(path):
        yield path, size
        return
    with scratch_folder() as folder:
        yield fixed_file(path, folder, size), None


def _tell(skipped: list[ImageError], answered: int) -> None:
    """One damaged file is no reason to leave the others without an answer, but one to fail."""
    if not answered and len(skipped) == 1:
        raise skipped[0]
    for error in skipped:
        typer.echo(f"  skipped: {error.seen}", err=True)
    if skipped:
        raise ImageError(
            f"{len(skipped)} of {answered + len(skipped)} pictures could not be read; the others have their answers",
            remedy="remove or replace them",
        )
