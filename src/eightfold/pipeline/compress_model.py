"""The front door: from any network and unlabelled images to a smaller, measured bundle, in one call.

The arguments become a recipe, which `eightfold run` carries out; the recipe is written beside the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from eightfold.calib.images.images import open_images
from eightfold.calib.images.preprocess import Preprocess
from eightfold.compress.plan.latency.budget_text import MIXED
from eightfold.compress.plan.selection_rules import MEASURED
from eightfold.defaults import RECOVERY_MINUTES
from eightfold.errors import ModelError, UsageError
from eightfold.export.targets import target_named
from eightfold.extras import require
from eightfold.files import PathLike, write_text
from eightfold.json_types import JsonDict
from eightfold.pipeline.job.dry_run import StepPreview
from eightfold.pipeline.job.recipe_paths import from_root
from eightfold.pipeline.job.runner import Listener
from eightfold.pipeline.run import RunResult, preview_run, run
from eightfold.recipe import Recipe, recipe_from
from eightfold.runtime.backends.targets import cpu_target
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.threads import most_threads
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import load_source, source_of

RECIPE = "recipe.yaml"
# Points that may be lost: of a metric on labels, and of the agreement with the original.
MAX_DROP, MAX_DISAGREEMENT = 1.0, 10.0
MOST_FLOAT = 0.25  # of the layers of an INT8 graph: with more it is hardly faster
CALIBRATION_IMAGES, TRAIN_IMAGES, TEST_IMAGES = 128, 512, 64
BATCHES = (1, 8)
ENGINE_FAMILIES = ("rtx", "tensorrt")


@dataclass(frozen=True)
class CompressOptions:
    """Options of `compress_model`. None leaves an option to the network's source, or to the data.

    Attributes:
        targets: what the result is for: "cpu-x86", "openvino", "rtx:sm86", "tensorrt:10.3", ...
        keep: mean share of the widths that stays. Measured output errors decide which widths keep more, at no more
            multiply-accumulates than this share of every width has.
        latency: a budget of measured latency instead of `keep`: "0.5x" of the network's own, or "12ms", on each target
            of this machine (else the first) at the first batch, in `precision`, with `threads` (the physical cores by
            default). Precision "mixed" also chooses the layers that stay in float.
        labelled: labelled test images: FOLDER/LABEL/*, a COCO .json or a YOLO .yaml.
        minutes: time limit of recovery from the unlabelled images; 20 where anything is pruned, 0 leaves it out.
        max_drop: points of the metric, or of the agreement, that any artifact may lose.
        min_speedup: times as fast as the original, at every batch size.
        batches: images in each run.
        size, num_classes, weights, inputs, task, preprocess: of the network, where its source does not know them.
        seed: of random choices.
        seconds: timed seconds for each row of the latency table.
    """

    targets: tuple[str, ...] = ("cpu-x86",)
    keep: float = 0.5
    latency: str | None = None
    precision: Literal["fp32", "int8", "mixed"] = "int8"
    threads: int | None = None
    labelled: str | None = None
    minutes: float | None = None
    max_drop: float | None = None
    min_speedup: float = 1.0
    batches: tuple[int, ...] = ()
    size: Size | None = None
    num_classes: int | None = None
    weights: Path | None = None
    inputs: JsonDict = field(default_factory=dict)
    task: Task | None = None
    preprocess: Preprocess | None = None
    seed: int = 0
    seconds: float = 3.0


def compress_model(
    model: PathLike,
    images: PathLike,
    output: PathLike,
    *,
    options: CompressOptions | None = None,
    listener: Listener = lambda _: None,
) -> RunResult:
    """Prune, compensate, export, calibrate, quantize, build and measure a network, with unlabelled images only.

    The result lies in a run directory as `run` writes it: `bundle/`, `report.html`, and `recipe.yaml`, which would do
    the same. Answers are compared with labels where there are any, else with the original's on held-out images. An
    interrupted call goes on where it was when it is made again.

    Args:
        model: any model source: an .onnx file, a name, `package.module:function`, a pruned folder; see `load_source`.
        images: a folder, a pattern or a list of images as the network will see them.
        output: the run directory.
        options: see CompressOptions.
        listener: as for `run`.

    Returns:
        the run; `failed` lists what does not hold: an artifact that is not faster, or answers that differ too much.

    Raises:
        UsageError: an option is wrong, or the network comes without trained weights.
        ModelError: the network cannot be loaded, or run in torch.
        ImageError: no image can be read.

    Example:
        >>> import eightfold as ef
        >>> result = ef.compress_model("yolo.onnx", "photos", "out")  # doctest: +SKIP
        >>> [check.name for check in result.failed]  # doctest: +SKIP
        []
    """
    recipe = recipe_for(str(model), str(images), output, options or CompressOptions())
    try:
        return run(recipe, output=output, listener=listener)
    finally:
        if Path(output, "steps").is_dir():  # a folder of other things is left alone
            write_text(Path(output) / RECIPE, recipe_text(recipe))


def preview_compress(
    model: PathLike, images: PathLike, output: PathLike, *, options: CompressOptions | None = None
) -> tuple[StepPreview, ...]:
    """Predicts `compress_model`, step by step. Nothing is written."""
    return preview_run(recipe_for(str(model), str(images), output, options or CompressOptions()), output=output)


def recipe_for(model: str, images: str, output: PathLike, options: CompressOptions) -> Recipe:
    """The recipe that does the same. Raises as `compress_model`."""
    _require_weights(model, options)
    if options.max_drop is not None and not 0 <= options.max_drop < math.inf:
        raise UsageError(f"{options.max_drop:g} points that may be lost", allowed="0 or more")
    for source in (images, options.labelled):  # before the network is loaded, which takes longer
        if source is not None:
            open_images(source)
    loaded = load_source(
        model,
        SourceOptions(
            num_classes=options.num_classes, size=options.size, weights=options.weights, inputs=options.inputs
        ),
    )
    if loaded.exportable:
        raise ModelError(f"{model} cannot be exported: {loaded.exportable}", allowed="networks of static shapes")
    task = options.task or loaded.task
    quantized, engines = _targets(options.targets)
    batches = options.batches or _batches(loaded)
    drop = MAX_DISAGREEMENT if options.labelled is None else MAX_DROP
    data: JsonDict = {"source": images, "train_images": TRAIN_IMAGES, "test_images": TEST_IMAGES}
    recipe: JsonDict = {
        "name": _bundle_name(loaded.name),
        "output": str(output),
        "seed": options.seed,
        "model": _model_section(model, options),
        "task": _task_section(task, labelled=options.labelled is not None),
        "data": data | ({"labelled": options.labelled} if options.labelled else {}),
        "preprocess": _preprocess(loaded, options).model_dump(mode="json"),
        "compress": {
            "keep_ratio": options.keep,
            "rule": MEASURED,
            **_latency(options, quantized, batches),
            "compensate": "lsq",
            "compensate_images": CALIBRATION_IMAGES,
            "recover_minutes": recovery_minutes(options),
        },
        "export": {"batches": list(batches), "tolerance": 1e-3},
        "calibrate": {"images": CALIBRATION_IMAGES},
        "quantize": {"targets": list(quantized), **_layers_in_float(options)},
        "bench": {"threads": min(2, most_threads()), "seconds_per_row": options.seconds},
        "limits": {
            "max_drop": drop if options.max_drop is None else options.max_drop,
            "min_speedup": options.min_speedup,
        },
    }
    if engines:
        recipe["engines"] = {"target": engines[0] if len(engines) == 1 else list(engines), "batches": list(batches)}
    return recipe_from(recipe, source="the options")


def _latency(options: CompressOptions, targets: Sequence[str], batches: Sequence[int]) -> dict[str, Any]:
    if options.latency is None:
        return {}
    here = [each for each in targets if each in (cpu_target(), "openvino")]
    return {
        "latency": options.latency,
        "target": ",".join(here[:1] if options.precision == MIXED else here) or targets[0],
        "precision": options.precision,
        "batch": batches[0],
        "threads": options.threads or min(2, most_threads()),
    }


def _layers_in_float(options: CompressOptions) -> JsonDict:
    """INT8 may cost a quarter of what is allowed, as the calibration images show it. A plan of mixed precision has
    chosen its layers."""
    if options.latency is not None and options.precision == MIXED:
        return {}
    allowed = MAX_DISAGREEMENT if options.labelled or options.max_drop is None else options.max_drop
    return {"max_drop": allowed / 4, "most_float": MOST_FLOAT}


def _require_weights(model: str, options: CompressOptions) -> None:
    source = source_of(model)
    if options.weights is None and not source.brings_weights(model):
        raise UsageError(
            f"{model} has random weights",
            allowed="trained weights: --weights FILE.safetensors, or a source that brings its own",
            remedy="save them with torch.save(model.state_dict(), 'weights.pt')",
        )


def _task_section(task: Task, *, labelled: bool) -> JsonDict:
    """With labels, a network of unknown outputs is taken for a classifier, as in any recipe."""
    if task.kind == "tensors" and labelled:
        return {}
    decode = "" if task.kind == "classify" else task.decode
    return {"kind": task.kind, "decode": decode, "options": task.options, "labels": list(task.labels)}


def _model_section(model: str, options: CompressOptions) -> JsonDict:
    section: JsonDict = {"source": model}
    if options.weights is not None:
        section["weights"] = str(options.weights)
    if options.inputs:
        section["inputs"] = options.inputs
    if options.num_classes is not None:
        section["classes"] = options.num_classes
    return section


def _bundle_name(name: str) -> str:
    """Of the letters that the names of bundles may have; files are called anything."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "network"


def _preprocess(loaded: LoadedModel, options: CompressOptions) -> Preprocess:
    return loaded.preprocess if options.preprocess is None else options.preprocess.at_size(*loaded.size)


def recovery_minutes(options: CompressOptions) -> float:
    """Time limit of recovery. There is nothing to recover where nothing is pruned."""
    if options.minutes is not None:
        return options.minutes
    return RECOVERY_MINUTES if options.keep < 1 else 0.0


def _targets(targets: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All targets, and those that engines are built for."""
    for target in targets:
        target_named(target)
    different = tuple(dict.fromkeys(targets))
    families = {target: target.partition(":")[0].split("-")[0] for target in different}
    return different, tuple(target for target in different if families[target] in ENGINE_FAMILIES)


def _batches(loaded: LoadedModel) -> tuple[int, ...]:
    """Those of an ONNX file that fixes its batch; else the usual ones."""
    if not isinstance(loaded.network, Path):
        return BATCHES
    from eightfold.export.fixed_size.file_inputs import FileInputs

    fixed = FileInputs.of(loaded.network).fixed_batch
    return (fixed,) if fixed else BATCHES


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML: what differs from the defaults, with paths from the root."""
    yaml = require("yaml", "write a recipe")
    content = from_root(recipe).model_dump(mode="json", exclude_defaults=True)
    content["preprocess"] = {
        name: value for name, value in content["preprocess"].items() if name not in ("kind", "schema")
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return "# Written by `eightfold compress`: `eightfold run` on it does the same, from any directory.\n" + text
