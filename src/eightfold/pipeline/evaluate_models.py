"""`evaluate`: the metrics of one network or artifact on labelled images, or of two with a paired test."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from eightfold.arrays import Array, Arrays
from eightfold.calib.images.preprocess import Preprocess
from eightfold.errors import UsageError
from eightfold.files import PathLike
from eightfold.json_types import JsonDict, JsonMapping
from eightfold.pipeline.dynamic_files import fixed_file
from eightfold.runtime.backends import open_session
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.runtime.predict.onnx_bundle import bundle_of_onnx
from eightfold.scratch import scratch_folder
from eightfold.tasks.base import Network
from eightfold.tasks.networks import module_network
from eightfold.tasks.paired import Paired
from eightfold.tasks.results import Results, results_of
from eightfold.text_table import text_table
from eightfold.zoo.sources.base import SourceOptions
from eightfold.zoo.sources.registry import load_source, options_for


@dataclass(frozen=True)
class EvaluateOptions:
    """Of networks from a model source, and of .onnx files: what their source does not know.

    Attributes:
        task: the meaning of the outputs.
        preprocess: how an image becomes the input.
        weights, num_classes, size, inputs: of a named network, as for `load_source`.
    """

    task: Task | None = None
    preprocess: Preprocess | None = None
    weights: Path | None = None
    num_classes: int | None = None
    size: Size | None = None
    inputs: JsonMapping = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationTable:
    """Metrics of one or two subjects on the same images.

    Attributes:
        results: by subject.
        paired: the test of their difference, where there are two.
    """

    images: int
    results: dict[str, Results] = field(default_factory=dict)
    paired: Paired | None = None

    def describe(self) -> str:
        """A table of the metrics, then those of each class, the confusion and the paired test."""
        names = list(self.results)
        metrics = list(self.results[names[0]].metrics)
        rows = [[metric, *(_shown(self.results[name].metrics[metric]) for name in names)] for metric in metrics]
        lines = [f"{self.images} images", *text_table([["metric", *names], *rows], left={0})]
        for name in names:
            lines += ["", f"{name}, by class:", *self.results[name].by_class_lines()]
        if self.paired is not None:
            lines += ["", self.paired.describe()]
        return "\n".join(lines)

    def to_dict(self) -> JsonDict:
        """The output of `eightfold evaluate --json`."""
        return {
            "images": self.images,
            "results": {name: result.to_dict() for name, result in self.results.items()},
            "paired": None if self.paired is None else asdict(self.paired),
        }


def evaluate(
    first: PathLike, second: PathLike | None = None, *, data: PathLike, options: EvaluateOptions | None = None
) -> EvaluationTable:
    """Measure a network on labelled images, as it would ship: its own preprocessing, batch and decoder.

    Args:
        first, second: a bundle, BUNDLE:ARTIFACT, an .onnx file, a folder that prune wrote, or any model source.
        data: FOLDER/LABEL/* to classify; a COCO .json or a YOLO .yaml to detect; a folder with images/ and masks/
            (class numbers, 255 for unknown) to segment, or with images/ and alphas/ for mattes.
        options: see EvaluateOptions.

    Returns:
        top-1 and top-5; mAP50-95 and mAP50; mIoU; or MAD, MSE and SAD; each by class where there are classes. Of two
        subjects a paired test: McNemar's for top-1, else a bootstrap over images.

    Raises:
        UsageError: there is no such artifact, the outputs have no metric, or the two are of different tasks.
        ImageError: the labels cannot be read or do not fit.
    """
    options = options or EvaluateOptions()
    subjects = [first, *([] if second is None else [second])]
    if len({str(subject) for subject in subjects}) < len(subjects):
        raise UsageError(f"{first} twice", allowed="two different subjects")
    with scratch_folder() as folder:
        networks = {
            str(subject): _network(str(subject), options, folder / str(place), several=len(subjects) > 1)
            for place, subject in enumerate(subjects)
        }
        kinds = {network.task.kind for network in networks.values()}
        if len(kinds) > 1:
            raise UsageError(f"tasks {' and '.join(sorted(kinds))}", allowed="two subjects of one task")
        results = {name: results_of(network, Path(data)) for name, network in networks.items()}
    found = list(results.values())
    paired = found[0].paired(found[1]) if len(found) == 2 else None
    return EvaluationTable(found[0].images, results, paired)


def _shown(value: float) -> str:
    return f"{value:.1%}" if 0 <= value <= 1 else f"{value:.4g}"


def _network(text: str, options: EvaluateOptions, folder: Path, *, several: bool) -> Network:
    path, _, artifact = text.rpartition(":") if _bundle_path(text.rpartition(":")[0]) else (text, "", "")
    if _bundle_path(path):
        return _of_bundle(Bundle.open(path), artifact)
    given = options.preprocess
    size = options.size if given is None or options.size else (given.height, given.width)
    if path.endswith(".onnx"):
        file = fixed_file(Path(path), folder, size)
        return _of_bundle(bundle_of_onnx(file, task=options.task, preprocess=given), "")
    asked = SourceOptions(options.num_classes, size, options.weights, options.inputs)
    loaded = load_source(text, options_for(text, asked) if several else asked)
    rules = loaded.preprocess if given is None else given.at_size(*loaded.size)
    return module_network(loaded.module, rules, options.task or loaded.task, batch=8)


def _bundle_path(text: str) -> bool:
    return text.endswith(".eightfold") or (bool(text) and (Path(text) / "manifest.json").is_file())


def _of_bundle(bundle: Bundle, artifact: str) -> Network:
    graphs = [each for each in bundle.manifest.artifacts if each.format == "onnx"]
    if not graphs:
        raise UsageError(f"{bundle.path} holds no ONNX graph", allowed="a bundle with graphs that a CPU runs")
    chosen = bundle.artifact(artifact) if artifact else graphs[0]
    session = open_session(bundle.artifact_path(chosen), "onnxruntime")
    slot, spec = session.new_slot(), session.inputs[0]

    def predict(images: Array) -> Arrays:
        slot.run_on({spec.name: images})
        return slot.outputs

    return Network(predict, spec.shape[0], bundle.manifest.preprocess_of(chosen), bundle.manifest.task)
