"""`eightfold prune`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eightfold.cli.network import (
    ImagesPreprocess,
    Source,
    SourceClasses,
    SourceInputs,
    SourceSize,
    SourceWeights,
    load_network,
    model_images,
    preprocess_for,
)
from eightfold.cli.options import Seed, image_size
from eightfold.defaults import COMPENSATION_IMAGES, KEEP_RATIO, PRUNING_RULE, PRUNING_SCORE
from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.json_types import JsonDict

if TYPE_CHECKING:
    from eightfold.compress.plan.select import LayerRange
    from eightfold.compress.prune import Pruned
    from eightfold.zoo.sources.base import LoadedModel

Merge = Literal["union", "intersection", "least", "most"]
Rounding = Literal["nearest", "up", "down"]


def multiple_or_auto(text: str | int) -> int | str:
    """A number of 1 or more, or "auto"."""
    if text == "auto" or (str(text).isdecimal() and int(text) > 0):
        return text if text == "auto" else int(text)
    raise UsageError(f"--multiple {text}", allowed="a whole number of 1 or more, or auto")


def prune(
    model: Source,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory, or an .onnx file where the network is one.")
    ],
    weights: SourceWeights = None,
    classes: SourceClasses = None,
    size: SourceSize = None,
    inputs: SourceInputs = None,
    keep: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the channels to keep.")] = KEEP_RATIO,
    rule: Annotated[str, typer.Option(help="Selection rule: uniform, global, slim, regular, ...")] = (PRUNING_RULE),
    merge: Annotated[Merge, typer.Option(help="For slim: vote of layers that share channels.")] = "union",
    score: Annotated[str, typer.Option(help="Channel score: l2, l1, bn_scale, lamp, fpgm, group_l2, lsq ...")] = (
        PRUNING_SCORE
    ),
    multiple: Annotated[
        int,
        typer.Option(
            parser=multiple_or_auto, metavar="INTEGER|auto", help="Channel multiple; auto: the device's step."
        ),
    ] = 8,
    ignore: Annotated[list[str] | None, typer.Option(help="Parameter names (with *) not to prune.")] = None,
    prune: Annotated[
        list[str] | None, typer.Option("--prune", help="NAME=SHARE to prune of some layers: 'layer3.*.conv2=0.4'.")
    ] = None,
    max_macs: Annotated[float | None, typer.Option(help="Upper bound of MACs; up to 1: a share.")] = None,
    max_params: Annotated[float | None, typer.Option(help="Upper bound of parameters; up to 1: a share.")] = None,
    latency: Annotated[
        str | None, typer.Option(help="Measured latency to stay under: 0.5x of the network's own, or 12ms.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="Where --latency holds: cpu-x86, openvino, or both. Default: this CPU.")
    ] = "",
    precision: Annotated[str, typer.Option(help="Of --latency: fp32, int8, both, or mixed. Default: fp32.")] = "fp32",
    batch: Annotated[int, typer.Option(min=1, help="Images per call of --latency.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of --latency. Default: the physical cores.")
    ] = None,
    profile: Annotated[Path | None, typer.Option(help="File of `eightfold profile -o`. Default: the cache.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps to --latency, with channels scored anew after each.")] = 1,
    target_weights: Annotated[
        str | None, typer.Option(help="Weights of several targets: 2,1. Default: each holds.")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to stay under beside --latency: 0.5x, or 64MB.")] = None,
    energy: Annotated[str | None, typer.Option(help="Energy per call to stay under (Jetson): 0.5x, or 20mJ.")] = None,
    rounding: Annotated[
        Rounding | None, typer.Option(help="Rounding to the multiple. Default: nearest; up for the rule regular.")
    ] = None,
    layer_keep: Annotated[float, typer.Option(min=0, max=1, help="For slim: least share of a layer.")] = 0.01,
    range: Annotated[
        list[str] | None,
        typer.Option("--range", help="UNTIL=KEEP: pool of the groups before number UNTIL. Repeat."),
    ] = None,
    remove_blocks: Annotated[
        str, typer.Option(help="Residual blocks to remove: number, module paths with commas, or auto.")
    ] = "0",
    block_score: Annotated[
        str, typer.Option(help="Block score: contribution, recoverability, bn_scale.")
    ] = "contribution",
    layer_norms: Annotated[
        bool, typer.Option("--layer-norms", help="Prune channels below layer norms as well; needs --compensate lsq.")
    ] = False,
    compensate: Annotated[
        str, typer.Option(help="Compensation for removed channels: none, bn_beta, mean, lsq.")
    ] = "none",
    images: Annotated[Path | None, typer.Option(help="Folder of unlabelled images for lsq, mean, scores.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Maximum number of images.")] = COMPENSATION_IMAGES,
    preprocess: ImagesPreprocess = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Also write load.py, which needs torch and safetensors only.")
    ] = False,
    plan: Annotated[Path | None, typer.Option(help="Plan of the same network to apply to an .onnx file.")] = None,
    seed: Seed = 0,
) -> None:
    """Prune a network to aligned widths, and save it with its plan.

    Example: eightfold prune resnet18 --weights resnet18.pt --keep 0.5 --compensate lsq --images photos -o pruned

    Example: eightfold prune model.onnx --keep 0.5 --compensate lsq --images photos -o pruned.onnx
    """
    require("torch", "prune a network")
    from eightfold.compress.surgery.blocks import require_images_for_blocks
    from eightfold.zoo.sources.pruned_folder import onnx_file_of

    file = onnx_file_of(model)
    _require_place(output, file)
    if plan is not None:
        if file is None:
            raise UsageError(
                f"--plan {plan} for {model}", allowed="an .onnx file", remedy="use ef.apply_plan in Python"
            )
        _apply(plan, file, output, size)
        return
    blocks = _blocks(remove_blocks)
    require_images_for_blocks(blocks, block_score, () if images is None else [images])
    loaded = load_network(model, weights=weights, classes=classes, size=size, inputs=inputs, seed=seed)
    loaded = dataclasses.replace(loaded, preprocess=preprocess_for(loaded, preprocess))
    options: JsonDict = {
        "compensation": compensate,
        "images": model_images(images, loaded.preprocess, count, seed),
        "rule": rule,
        "merge": merge,
        "score": score,
        "keep_ratio": keep,
        "multiple": multiple,
        "ignore": tuple(ignore or ()),
        "keep": _ratios(prune or []),
        "max_macs": max_macs,
        "max_params": max_params,
        "latency": latency,
        "target": target,
        "precision": precision,
        "batch": batch,
        "threads": threads,
        "profile": profile,
        "rounds": rounds,
        "target_weights": _weights(target_weights),
        "memory": memory,
        "energy": energy,
        "rounding": rounding,
        "layer_keep": layer_keep,
        "ranges": _ranges(range or []),
        "remove_blocks": blocks,
        "block_score": block_score,
        "layer_norms": layer_norms,
        "seed": seed,
    }
    done = _pruned_file(file, loaded, output, options) if file else _pruned_module(loaded, output, standalone, options)
    print(done.describe())
    print(f"wrote {output}")
    _save_report(done, output)


def _require_place(output: Path, file: Path | None) -> None:
    """Refuse an output that cannot be written, before the work."""
    if file is not None:
        from eightfold.compress.onnx.artifacts import require_file_output

        require_file_output(output, file)
    else:
        from eightfold.compress.surgery.artifacts import require_pruned_output

        require_pruned_output(output)


def _apply(plan: Path, file: Path, output: Path, size: str | None) -> None:
    """Apply a plan that was made before."""
    from eightfold.compress.onnx.prune_file import apply_plan_file
    from eightfold.compress.plan.plan import PrunePlan

    read = PrunePlan.load(plan / "plan.json" if plan.is_dir() else plan)
    apply_plan_file(file, read, output, size=None if size is None else image_size(size))
    print(f"wrote {output}")


def _pruned_file(file: Path, loaded: LoadedModel, output: Path, options: JsonDict) -> Pruned:
    from eightfold.compress.onnx.prune_file import prune_file

    return prune_file(file, output=output, size=loaded.size, **options)


def _pruned_module(loaded: LoadedModel, output: Path, standalone: bool, options: JsonDict) -> Pruned:
    from eightfold.compress.prune import prune_module
    from eightfold.compress.surgery.artifacts import save_pruned

    done = prune_module(loaded.module, (*loaded.example_inputs(), *loaded.trace_arguments), **options)
    costs = {"macs_before": done.macs_before, "parameters_before": done.surgery.parameters_before}
    record = loaded.record().model_copy(update=costs)
    native = loaded.write_native
    save_pruned(loaded.module, done.plan, output, source=record, standalone=standalone, write_native=native)
    return done


def _save_report(done: Pruned, output: Path) -> None:
    """Beside the file, or in the folder, that was written."""
    if done.latency is not None:
        from eightfold.compress.latency.plot import save_report

        for path in save_report(done.latency, output if output.is_dir() else output.with_suffix("")):
            print(f"wrote {path}")


def _weights(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(each) for each in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--target-weights {text}", allowed="numbers with commas, such as 2,1") from None


def _ratios(options: list[str]) -> dict[str, float]:
    """'NAME=SHARE that goes' -> name: share that stays."""
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


def _ranges(options: list[str]) -> tuple[LayerRange, ...]:
    """'UNTIL=KEEP' -> a range of groups with a keep ratio of its own."""
    from pydantic import ValidationError

    from eightfold.compress.plan.select import LayerRange

    found = []
    for option in options:
        until, _, ratio = option.partition("=")
        try:
            found.append(LayerRange.model_validate({"until": until, "keep_ratio": ratio}))
        except ValidationError:
            raise UsageError(
                f"--range {option}", allowed="UNTIL=KEEP with a number of groups and 0 < KEEP <= 1, e.g. 12=0.5"
            ) from None
    return tuple(found)


def _blocks(text: str) -> int | tuple[str, ...]:
    """A number of blocks, their module paths, or "auto"."""
    return int(text) if text.isdigit() else tuple(part.strip() for part in text.split(",") if part.strip())
