"""`eightfold compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.options import image_inputs, image_size
from eightfold.errors import UsageError

if TYPE_CHECKING:
    import torch


def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="An .onnx, .xml or .engine file, a bundle, BUNDLE:ARTIFACT, or a network's name (torchvision name, "
            "timm:NAME, package.module:function)."
        ),
    ],
    second: Annotated[str, typer.Argument(help="Likewise, with the same inputs.")],
    worst: Annotated[int, typer.Option(help="Show only so many layers, those with the lowest cosine. 0: all.")] = 20,
    plot: Annotated[Path | None, typer.Option(help="Also write a plot of the error along the network.")] = None,
    size: Annotated[str, typer.Option(help="Image size where both are torch networks.")] = "224",
    classes: Annotated[int, typer.Option(help="Number of outputs of a torch network.")] = 1000,
    weights: Annotated[Path | None, typer.Option(help="Weights of the torch network (.safetensors or .pt).")] = None,
    images: Annotated[str | None, typer.Option(help="Compare on the first of these images.")] = None,
    preprocess: Annotated[Path | None, typer.Option(help="JSON of the Preprocess of those images.")] = None,
) -> None:
    """Run two artifacts on the same inputs and show where they differ, layer by layer.

    Example: eightfold compare fp32.onnx int8.onnx --worst 10

    Example: eightfold compare resnet18 model.eightfold:resnet18-b1 --weights resnet18.pt
    """
    from eightfold.export.compare import compare_artifacts
    from eightfold.export.comparison_plot import plot_comparison
    from eightfold.export.subjects import subject_of

    if images is not None and preprocess is None:
        raise UsageError("--images without --preprocess", allowed="both: how an image becomes the input")
    subjects = [subject_of(_opened(name, classes, weights)) for name in (first, second)]
    specs = subjects[0].inputs or subjects[1].inputs
    inputs = None if images is None or preprocess is None else image_inputs(specs, images, preprocess)
    shape = (1, 3, *image_size(size))
    comparison = compare_artifacts(subjects[0], subjects[1], inputs=inputs, image_shape=shape)
    print(comparison.describe(worst))
    if plot is not None:
        typer.echo(f"wrote {plot_comparison(comparison, plot)}", err=True)


def _opened(name: str, classes: int, weights: Path | None) -> str | torch.nn.Module:
    """A path as it is; the network, where it is the name of one."""
    from eightfold.export.subjects import SUFFIXES

    place = Path(name.rpartition(":")[0] or name)
    if Path(name).suffix in SUFFIXES or Path(name).exists() or place.exists() or place.suffix == ".eightfold":
        return name
    from eightfold.zoo.models import build_model, load_weights

    network = build_model(name, num_classes=classes)
    if weights is not None:
        load_weights(network, weights)
    return network
