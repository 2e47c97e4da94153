"""`eightfold prune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eightfold.cli.options import image_size
from eightfold.extras import require

if TYPE_CHECKING:
    import torch

Merge = Literal["union", "intersection", "least", "most"]


def prune(
    model: Annotated[str, typer.Argument(help="A torchvision name, timm:NAME or package.module:function.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for weights.safetensors and plan.json.")],
    weights: Annotated[Path | None, typer.Option(help="Trained weights (.safetensors or a plain .pt).")] = None,
    classes: Annotated[int, typer.Option(help="Number of outputs of the model.")] = 1000,
    size: Annotated[str, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH.")] = "224",
    keep: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the channels that stays.")] = 0.5,
    rule: Annotated[str, typer.Option(help="How scores become kept channels: uniform, global, slim, regular, ...")] = (
        "uniform"
    ),
    merge: Annotated[Merge, typer.Option(help="For slim: how layers that share channels agree on them.")] = "union",
    score: Annotated[str, typer.Option(help="What ranks channels: l2, l1, bn_scale, lamp, fpgm, group_l2, lsq ...")] = (
        "l2"
    ),
    multiple: Annotated[int, typer.Option(min=1, help="Every width becomes a multiple of this.")] = 8,
    ignore: Annotated[list[str] | None, typer.Option(help="Parameter names, * allowed, that stay whole.")] = None,
    prune: Annotated[
        list[str] | None, typer.Option("--prune", help="NAME=SHARE that goes, for some layers: 'layer3.*.conv2=0.4'.")
    ] = None,
    max_macs: Annotated[float | None, typer.Option(help="MACs to stay under; up to 1, a share.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Parameters to stay under; up to 1, a share.")] = None,
    remove_blocks: Annotated[int, typer.Option(min=0, help="Residual blocks to take out.")] = 0,
    compensate: Annotated[str, typer.Option(help="What makes up for the removed: none, bn_beta, mean, lsq.")] = "none",
    images: Annotated[Path | None, typer.Option(help="Folder of unlabelled images for lsq, mean, scores.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many of the images to use.")] = 256,
    preprocess: Annotated[Path | None, typer.Option(help="JSON file of a Preprocess for the images.")] = None,
    seed: Annotated[int, typer.Option(help="For random choices.")] = 0,
) -> None:
    """Prune a network to regular widths. It is saved with the plan that shapes it.

    Example: eightfold prune resnet18 --weights resnet18.pt --keep 0.5 --compensate lsq --images photos -o pruned
    """
    from eightfold.zoo.models import build_model
    from eightfold.zoo.weights import load_weights

    require("torch", "prune a network")
    from eightfold.compress.prune import prune as prune_network
    from eightfold.compress.surgery.artifacts import require_pruned_output, save_pruned

    require_pruned_output(output)
    network = build_model(model, num_classes=classes, seed=seed)
    if weights is not None:
        load_weights(network, weights)
    height, width = image_size(size)
    batch = _images(images, preprocess, (height, width), count, seed)
    done = prune_network(
        network,
        _example(height, width, preprocess),
        compensation=compensate,
        images=batch,
        rule=rule,
        merge=merge,
        score=score,
        keep_ratio=keep,
        multiple=multiple,
        ignore=tuple(ignore or ()),
        keep=_ratios(prune or []),
        max_macs=max_macs,
        max_params=max_params,
        remove_blocks=remove_blocks,
        seed=seed,
    )
    save_pruned(network, done.plan, output)
    print(done.describe())
    print(f"wrote {output}")


def _example(height: int, width: int, preprocess: Path | None) -> torch.Tensor:
    import torch

    from eightfold.calib.images.preprocess import Preprocess

    return torch.zeros(1, Preprocess.load(preprocess).channels if preprocess else 3, height, width)


def _images(
    folder: Path | None, preprocess: Path | None, size: tuple[int, int], count: int, seed: int
) -> torch.Tensor | tuple[()]:
    """Model-ready images [n, 3, height, width], or nothing when no folder is given."""
    if folder is None:
        return ()
    import numpy as np
    import torch

    from eightfold.calib.images.images import open_images
    from eightfold.calib.images.preprocess import Preprocess

    how = Preprocess.load(preprocess) if preprocess else Preprocess(height=size[0], width=size[1])
    chosen = open_images(folder).sample(count, seed=seed)
    return torch.from_numpy(np.stack(list(chosen.prepared(how))))


def _ratios(options: list[str]) -> dict[str, float]:
    """'NAME=SHARE that goes' -> name: share that stays."""
    from eightfold.errors import UsageError

    keep: dict[str, float] = {}
    for option in options:
        name, _, share = option.partition("=")
        try:
            keep[name] = 1 - float(share)
        except ValueError:
            keep[name] = -1.0
        if not 0 < keep[name] <= 1:
            raise UsageError(f"--prune {option}", allowed="NAME=SHARE with 0 <= SHARE < 1, e.g. 'layer3.*.conv2=0.4'")
    return keep
