"""`eightfold recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.options import image_size


def recover(
    pruned: Annotated[Path, typer.Argument(help="Directory that `eightfold prune` wrote.")],
    original: Annotated[str, typer.Option(help="The network before pruning: torchvision name, timm:NAME, ...")],
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images of the network's domain.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the recovered weights and the plan.")],
    weights: Annotated[Path | None, typer.Option(help="Trained weights of the original (.safetensors, .pt).")] = None,
    classes: Annotated[int, typer.Option(help="Number of outputs of the original.")] = 1000,
    size: Annotated[str, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH.")] = "224",
    minutes: Annotated[float, typer.Option(help="Wall-clock time.")] = 20.0,
    batch: Annotated[int, typer.Option(min=1, help="Images in each step.")] = 8,
    rate: Annotated[float, typer.Option(help="Peak learning rate, relative to the weights.")] = 0.003,
    preprocess: Annotated[Path | None, typer.Option(help="JSON file of a Preprocess for the images.")] = None,
    seed: Annotated[int, typer.Option(help="For random choices.")] = 0,
) -> None:
    """Recover the accuracy of a pruned network from unlabelled images, by mimicking the original.

    A killed run goes on when the command is repeated. Beside OUTPUT lies its log, OUTPUT.csv.

    Example: eightfold recover pruned --original resnet18 --weights resnet18.pt --images photos --minutes 20 -o out
    """
    from eightfold.extras import require

    require("torch", "recover a pruned network")
    from eightfold.calib.images.preprocess import Preprocess
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.surgery.artifacts import PLAN, load_pruned, require_pruned_output, save_pruned
    from eightfold.compress.train.recover.recover import RecoverOptions
    from eightfold.compress.train.recover.recover import recover as recover_network
    from eightfold.errors import UsageError
    from eightfold.zoo.models import build_model, load_weights

    if not (pruned / PLAN).is_file():
        raise UsageError(f"{pruned} has no {PLAN}", allowed="a directory that `eightfold prune` wrote")
    require_pruned_output(output)
    network = build_model(original, num_classes=classes, seed=seed)
    if weights is not None:
        load_weights(network, weights)
    network.eval()
    small = load_pruned(lambda: build_model(original, num_classes=classes, seed=seed), pruned)
    plan = PrunePlan.load(pruned / PLAN)
    height, width = image_size(size)
    beside = output.absolute()
    done = recover_network(
        small,
        network,
        images,
        plan=plan,
        minutes=minutes,
        preprocess=Preprocess.load(preprocess) if preprocess else Preprocess(height=height, width=width),
        options=RecoverOptions(batch=batch, rate=rate),
        checkpoint=beside.with_name(f".{beside.name}.recover.safetensors"),
        log=beside.with_name(f"{beside.name}.csv"),
        seed=seed,
    )
    save_pruned(small, plan, output)
    print(done.describe())
    print(f"wrote {output}")
