"""`eightfold sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eightfold.cli.network import Source, SourcePreprocess, SourceSize
from eightfold.cli.options import Seed
from eightfold.cli.train.options import (
    Classes,
    TaskName,
    TrainingArguments,
    Weights,
)
from eightfold.errors import UsageError
from eightfold.extras import require


def sensitivity(
    network: Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="JSON file of the curves, written after each point.")],
    data: Annotated[str | None, typer.Option(help="Labelled images as for `train`: losses of the task's metric.")] = (
        None
    ),
    images: Annotated[str | None, typer.Option(help="Images without labels: distances of outputs.")] = None,
    ratio: Annotated[
        list[float] | None, typer.Option(help="Share of channels that go, repeatable. Default: 0.1 to 0.9.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group; wildcards; repeatable. Default: all.")] = None,
    score: Annotated[str, typer.Option(help="Score of channels, from weights.")] = "l2",
    multiple: Annotated[int, typer.Option(min=1, help="Widths become multiples of this.")] = 8,
    count: Annotated[int, typer.Option(min=1, help="Number of --images.")] = 64,
    loss: Annotated[float | None, typer.Option(help="Print the ratios at which each group alone loses this share.")] = (
        None
    ),
    max_macs: Annotated[
        float | None, typer.Option(help="Print the ratios that stay under these MACs; up to 1, a share.")
    ] = None,
    ray: Annotated[str | None, typer.Option(help="Measure on Ray: local workers (2), or a cluster's address.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the curves: .svg or .png.")] = None,
    weights: Weights = None,
    classes: Classes = None,
    size: SourceSize = None,
    task: TaskName = "",
    preprocess: SourcePreprocess = None,
    seed: Seed = 0,
) -> None:
    """Measure the cost of pruning each group, by several ratios.

    After an interruption, the same command resumes; points that the file has are not measured again.

    Example: eightfold sensitivity trained --images photos --max-macs 0.5 -o curves.json
    """
    torch = require("torch", "prune a network")
    from eightfold.cli.network import load_network, model_images, preprocess_for
    from eightfold.compress.sensitivity.cluster import ray_spread
    from eightfold.compress.sensitivity.curves import RATIOS, CurveOptions, sensitivity_curves
    from eightfold.compress.sensitivity.ratios import plot_curves, ratios_for_budget

    if (data is None) == (images is None):
        raise UsageError("--data and --images both given or both missing", allowed="one of them")
    spread = None if ray is None else ray_spread(ray)
    options = CurveOptions(tuple(ratio or RATIOS), score, multiple, tuple(group or ("*",)))
    if data is not None:
        arguments = TrainingArguments(
            network=network,
            data=data,
            epochs=1,
            rate=0.0,
            weights=weights,
            classes=classes,
            size=size,
            task=task,
            preprocess=preprocess,
            seed=seed,
        )
        subject = arguments.open()
        model, example = subject.module.eval(), subject.images(1)
        judged: dict[str, Any] = {"metric": subject.measure}
    else:
        loaded = load_network(network, weights=weights, classes=classes, size=size, seed=seed)
        batch = model_images(images, preprocess_for(loaded, preprocess), count, seed)
        model = loaded.module.eval()
        example = torch.as_tensor(batch[:1])
        judged = {"images": [(batch,)]}
    curves = sensitivity_curves(model, example, **judged, options=options, output=output, spread=spread)
    print(curves.describe())
    if loss is not None:
        _show(f"ratios at a loss of {loss:g}", curves.ratios_by_loss(loss))
    if max_macs is not None:
        _show(f"ratios for at most {max_macs:g} of MACs", ratios_for_budget(curves, model, example, max_macs=max_macs))
    if plot is not None:
        plot_curves(curves, plot)
    print(f"wrote {output}")


def _show(head: str, ratios: dict[str, float]) -> None:
    print(f"{head}: {' '.join(f'--prune {name}={ratio:.3f}' for name, ratio in ratios.items()) or 'none'}")
