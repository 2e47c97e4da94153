"""`eightfold sparsify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eightfold.cli.train.options import Output, TrainingArguments, train_and_save, training_command
from eightfold.compress.train.processes import is_main
from eightfold.extras import require

if TYPE_CHECKING:
    from eightfold.compress.train.hooks import Hook
    from eightfold.compress.train.sparsity.history import ScaleHistory
    from eightfold.pipeline.train_models import TrainingSubject


@training_command(epochs=10, rate=0.05)
def sparsify(
    arguments: TrainingArguments,
    output: Output,
    s: Annotated[
        float | None, typer.Option("--s", help="Strength of the penalty. Default: fitted to rate and epochs.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Batch norms: all, normal, shortcut or layer.")] = "all",
    schedule: Annotated[
        str | None,
        typer.Option(help="release, constant, global, local or dynamic. Default: by penalty."),
    ] = None,
    penalty: Annotated[str, typer.Option(help="scales (L1 on batch norms), coupled-scales or group-lasso.")] = "scales",
    update: Annotated[str | None, typer.Option(help="proximal or subgradient. Default: by penalty.")] = None,
) -> None:
    """Train with a penalty that pushes channels to zero. Pruning them costs little.

    Scales shrink by proximal steps under the schedule release; the group lasso has subgradients and stays constant.
    Histograms of the scales go to OUTPUT.scales.json. After an interruption, the same command resumes.

    Example: eightfold sparsify trained --data photos --s 1e-3 --epochs 10 -o sparse
    """
    require("torch", "train a network")
    from eightfold.compress.train.sparsity.proximal import UPDATES
    from eightfold.compress.train.sparsity.scales import LAYER_SETS, batch_norm_scales
    from eightfold.compress.train.sparsity.strength import KINDS, Strength
    from eightfold.compress.train.sparsity.suggest import suggested_ratio, suggested_strength
    from eightfold.compress.train.train import ONE_CYCLE
    from eightfold.errors import one_of

    usual = "constant" if penalty == "group-lasso" else "release"
    kind, chosen = one_of("schedule", schedule or usual, KINDS), one_of("layer set", layers, LAYER_SETS)
    way = None if update is None else one_of("update", update, UPDATES)
    kept: list[ScaleHistory] = []

    def hooks(subject: TrainingSubject) -> Sequence[Hook]:
        from eightfold.compress.train.sparsity.hook import Sparsity
        from eightfold.compress.train.sparsity.sparsify import penalty_of

        steps = max(1, arguments.epochs * len(subject.train_images) // arguments.batch)
        fitted = suggested_strength(subject.module, rate=arguments.rate, steps=steps, schedule=ONE_CYCLE, kind=kind)
        strength = fitted if s is None else s
        print(f"s = {strength:.3g}")
        example = subject.images(1)
        found = Sparsity(penalty_of(penalty, subject.module, Strength(strength, kind), chosen, example), way)
        kept.append(found.history)
        return [found]

    subject = train_and_save(arguments, output, "sparse training", hooks)
    print(kept[0].describe())
    if is_main():
        kept[0].save(output.absolute().with_name(f"{output.name}.scales.json"))
    if batch_norm_scales(subject.module):
        print(suggested_ratio(subject.module).describe())
