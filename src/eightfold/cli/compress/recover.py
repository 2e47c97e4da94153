"""`eightfold recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eightfold.cli.network import ImagesPreprocess, load_network, preprocess_for
from eightfold.cli.options import Seed
from eightfold.defaults import RECOVERY_MINUTES
from eightfold.errors import UsageError
from eightfold.extras import require


def recover(
    pruned: Annotated[Path, typer.Argument(help="Folder that `eightfold prune` wrote.")],
    original: Annotated[str, typer.Option(help="Network before pruning; see `eightfold sources`.")],
    images: Annotated[Path, typer.Option(help="Folder of unlabelled images of the network's domain.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the recovered weights and the plan.")],
    weights: Annotated[Path | None, typer.Option(help="Trained weights of the original (.safetensors, .pt).")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of outputs of the original.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Image size: SIDE or HEIGHTxWIDTH. Default: as it was pruned.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Wall-clock time limit.")] = RECOVERY_MINUTES,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 8,
    rate: Annotated[float, typer.Option(help="Peak learning rate, relative to the weights.")] = 0.003,
    preprocess: ImagesPreprocess = None,
    seed: Seed = 0,
) -> None:
    """Recover the accuracy of a pruned network by images. It learns to mimic the original, without labels.

    After an interruption, the same command resumes. The log lies beside OUTPUT, as OUTPUT.csv.

    Example: eightfold recover pruned --original resnet18 --weights resnet18.pt --images photos --minutes 20 -o out
    """
    require("torch", "recover a pruned network")
    from eightfold.compress.plan.plan import PrunePlan
    from eightfold.compress.surgery.artifacts import PLAN, require_pruned_output
    from eightfold.compress.surgery.source_record import SOURCE, SourceRecord
    from eightfold.compress.train.recover.folders import write_pruned
    from eightfold.compress.train.recover.options import RecoverOptions
    from eightfold.compress.train.recover.recover import recover as recover_network

    if not ((pruned / PLAN).is_file() and (pruned / SOURCE).is_file()):
        raise UsageError(f"{pruned} has no {PLAN} and {SOURCE}", allowed="a folder that `eightfold prune` wrote")
    require_pruned_output(output)
    small = load_network(str(pruned), seed=seed)
    known = size or "x".join(map(str, small.size))
    whole = load_network(original, weights=weights, classes=classes, size=known, seed=seed)
    plan = PrunePlan.load(pruned / PLAN)
    beside = output.absolute()
    done = recover_network(
        small.module,
        whole.module.eval(),
        images,
        plan=plan,
        minutes=minutes,
        preprocess=preprocess_for(small, preprocess),
        options=RecoverOptions(batch=batch, rate=rate),
        checkpoint=beside.with_name(f".{beside.name}.recover.safetensors"),
        log=beside.with_name(f"{beside.name}.csv"),
        seed=seed,
    )
    record = SourceRecord.load(pruned / SOURCE)
    graph = small.graph if isinstance(small.network, Path) else None
    write_pruned(small.module, plan, output, graph, record)
    print(done.describe())
    print(f"wrote {output}")
