"""`eightfold calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import ImagesArgument, PreprocessOfImages
from eightfold.defaults import CALIBRATION_BATCH, CALIBRATION_IMAGES, CALIBRATION_METHOD, PERCENTILE


def calibrate(
    model: Annotated[Path, typer.Argument(help="The FP32 .onnx file, of any batch size.")],
    images: ImagesArgument,
    preprocess: PreprocessOfImages,
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file of the ranges.")] = Path("ranges.json"),
    method: Annotated[
        str, typer.Option(help="minmax, moving-average, percentile, entropy or mse.")
    ] = CALIBRATION_METHOD,
    count: Annotated[
        int, typer.Option(help="Maximum number of images, drawn evenly over classes.")
    ] = CALIBRATION_IMAGES,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    percentile: Annotated[
        float, typer.Option(help="Percent of the values to cover, for the method percentile.")
    ] = PERCENTILE,
    batch: Annotated[int, typer.Option(help="Batch size.")] = CALIBRATION_BATCH,
    threads: Annotated[int, typer.Option(help="Threads; 0 for one per core.")] = 0,
    equalized: Annotated[
        Path | None, typer.Option(help="Equalize channels across layers first; output file of that graph.")
    ] = None,
    tensorrt_cache: Annotated[Path | None, typer.Option(help="Also write TensorRT's calibration cache here.")] = None,
    tensorrt_version: Annotated[str, typer.Option(help="Version of TensorRT that reads the cache, 7 to 10.")] = "8.6.1",
) -> None:
    """Find the range of every activation, once for all targets. Memory does not grow with the images.

    After an interruption, the same command resumes.

    Example: eightfold calibrate model.onnx photos/ --preprocess preprocess.json -o ranges.json
    """
    from eightfold.calib.calibrate import calibrate as measure
    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.calib.observers import METHODS
    from eightfold.calib.trt_cache import cache_from_ranges, version_number
    from eightfold.errors import one_of
    from eightfold.export.int8.equalize import equalize
    from eightfold.files import require_output, write_text

    version_number(tensorrt_version)  # before the work, not behind it
    for written in (output, equalized, tensorrt_cache):
        require_output(written, reads=[model, preprocess, images])

    chosen = open_images(images).sample(count, seed=seed)
    rules = Preprocess.load(preprocess)
    if equalized is not None:
        model, report = equalize(model, equalized, images=chosen, preprocess=rules)
        print(report.describe())
    ranges = measure(
        model,
        chosen,
        rules,
        method=one_of("method", method, list(METHODS)),
        batch=batch,
        percentile=percentile,
        threads=threads,
        checkpoint=output.with_suffix(".partial"),
    )
    print(ranges.describe())
    typer.echo(f"wrote {ranges.save(output)}", err=True)
    if tensorrt_cache is not None:
        write_text(tensorrt_cache, cache_from_ranges(ranges, version=tensorrt_version))
        typer.echo(f"wrote {tensorrt_cache}", err=True)
