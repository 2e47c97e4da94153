"""`eightfold compare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eightfold.cli.network import load_network
from eightfold.cli.options import image_size, inputs_from_images, task_named, terminal_width
from eightfold.errors import UsageError

if TYPE_CHECKING:
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.compare.feeds import Feeder
    from eightfold.export.compare.runnables import Runnable


def compare(
    first: Annotated[
        str,
        typer.Argument(help="An .onnx, .xml or .engine file, BUNDLE, BUNDLE:ARTIFACT or network."),
    ],
    second: Annotated[str, typer.Argument(help="The artifact to compare with, run on the same inputs.")],
    worst: Annotated[
        int, typer.Option(min=0, help="Number of layers to show, lowest cosine first. 0: all layers.")
    ] = 20,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot of the error along the network.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="SIDE or HEIGHTxWIDTH. Default: 224; of two bundles, every size."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of outputs of a torch network. Default: the source's own.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the torch network (.safetensors or .pt).")] = None,
    images: Annotated[str | None, typer.Option(help="Compare on the first of these images.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Labelled images: also compare top-1, or the mAP of two bundles."),
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(help="JSON of the Preprocess of those images. Default: a bundle's own.")
    ] = None,
    task: Annotated[str, typer.Option(help="Decoder or task JSON: compare decoded answers. Default: a bundle's.")] = "",
    onnx: Annotated[
        Path | None,
        typer.Option(help="Graph of the engine, to name its layers. Default: the one beside it."),
    ] = None,
) -> None:
    """Compare two artifacts layer by layer, on the same inputs.

    Layers are paired by their values, not by their names. Where the decoder is known, decoded answers are compared as
    well. Two bundles are compared artifact by artifact.

    Example: eightfold compare fp32.onnx int8.onnx --worst 10

    Example: eightfold compare resnet18 model.eightfold:resnet18-b1 --weights resnet18.pt

    Example: eightfold compare old.eightfold new.eightfold --data photos/val --plot errors.png
    """
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.export.compare.compare import compare_artifacts
    from eightfold.export.compare.compare_bundles import compare_bundles
    from eightfold.export.compare.comparison_plot import plot_comparison, require_plot_format
    from eightfold.files import require_output
    from eightfold.tasks.compare import compare_by_task

    require_output(plot, reads=[first, second, weights, preprocess, onnx, images, data])
    require_plot_format(plot)
    rules = None if preprocess is None else Preprocess.load(preprocess)
    if _is_bundle(first) and _is_bundle(second):
        feeder = _feeder(images or data, rules)
        wanted = None if size is None else image_size(size)
        bundles = compare_bundles(
            first, second, inputs=feeder, size=wanted, labelled=data, preprocess=rules, judge=compare_by_task
        )
        found, pairs = bundles.describe(worst, terminal_width()), bundles.pairs
    else:
        subjects = tuple(_opened(name, classes, weights) for name in (first, second))
        feeder = _feeder(images or data, rules, subjects)
        shape = (1, 3, *image_size(size or "224"))
        one = compare_artifacts(
            *subjects,
            inputs=feeder,
            image_shape=shape,
            labelled=data,
            preprocess=rules,
            onnx=onnx,
            judge=compare_by_task,
            task=task_named(task) if task else None,
        )
        found, pairs = one.describe(worst, terminal_width()), (one,)
    print(found)
    if plot is not None:
        typer.echo(f"wrote {plot_comparison(pairs, plot)}", err=True)


def _feeder(images: str | None, given: Preprocess | None, subjects: Sequence[Runnable] = ()) -> Feeder | None:
    """Prepares the first images for either of two networks, by rules that are given, its own or the other's."""
    from eightfold.export.compare.feeds import rules_for

    if images is None:
        return None

    def prepared(subject: Runnable) -> dict[str, Any]:
        specs = subject.inputs or next((each.inputs for each in subjects if each.inputs), ())
        owner = next((each for each in subjects if each.preprocess is not None), None)
        rules = rules_for(subject, given, owner)
        if rules is None:
            raise UsageError(
                "--images or --data without --preprocess",
                allowed="both: how an image becomes the input; a bundle knows its own",
            )
        return inputs_from_images(specs, images, rules)

    return prepared


def _is_bundle(name: str) -> bool:
    """True for a directory or a bundle file; the content is checked when it is opened."""
    return (Path(name).is_dir() and _exists(Path(name))) or Path(name).suffix == ".eightfold"


def _opened(name: str, classes: int | None, weights: Path | None) -> Runnable:
    """The artifact at a path, or the network of that name."""
    from eightfold.export.compare.runnables import SUFFIXES, runnable_of

    place = Path(name.rpartition(":")[0] or name)
    if Path(name).suffix in SUFFIXES or place.suffix == ".eightfold" or _exists(Path(name)) or _exists(place):
        return runnable_of(name)
    network = load_network(name, classes=classes, weights=weights).module
    return dataclasses.replace(runnable_of(network), name=name)


def _exists(path: Path) -> bool:
    """True for a file or folder other than one that prune wrote, which is a network."""
    from eightfold.compress.surgery.source_record import SOURCE

    return path.exists() and not (path / SOURCE).is_file()
