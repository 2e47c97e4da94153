"""`bench` of anything beside anything: networks, ONNX files, engines, bundles and pruned folders in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from eightfold.errors import ModelError, UsageError
from eightfold.files import PathLike
from eightfold.json_types import JsonMapping
from eightfold.pipeline.bench_names import distinct_names
from eightfold.pipeline.dynamic_files import is_dynamic
from eightfold.runtime.backends import backend_named
from eightfold.runtime.backends.targets import cpu_backends
from eightfold.runtime.bench.bench import BenchOptions, compare_latency
from eightfold.runtime.bench.candidates import (
    Candidate,
    at_batches,
    at_sizes,
    backends_for,
    candidates_of,
    is_model_file,
)
from eightfold.runtime.bench.interleave import Schedule
from eightfold.runtime.bench.latency import LatencyTable, MissingRow
from eightfold.runtime.bench.modes import Mode
from eightfold.runtime.bench.remote import Request, bench_on
from eightfold.runtime.bench.sweep import Threads
from eightfold.runtime.bundle.bundle import Bundle
from eightfold.runtime.bundle.sizes import Size, size_of
from eightfold.scratch import scratch_folder
from eightfold.zoo.sources.base import LoadedModel, SourceOptions
from eightfold.zoo.sources.registry import SOURCES, load_source, options_for
from eightfold.zoo.torch_backend import CUDA_NAME, NAME, SUFFIX, write_torch_model

Subject = Bundle | PathLike
TORCH = (NAME, CUDA_NAME)


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """Of subjects that are networks: their weights, number of classes and further inputs, as for `load_source`."""

    weights: Path | None = None
    num_classes: int | None = None
    inputs: JsonMapping = dataclasses.field(default_factory=dict)


def bench(
    *subjects: Subject,
    batches: Sequence[int] | None = None,
    sizes: Sequence[int | Size] | None = None,
    backends: Sequence[str] | None = None,
    seconds: float = 4.0,
    threads: Threads = None,
    baseline: str | None = None,
    end_to_end: bool = False,
    mode: Mode = "latency",
    device: str | None = None,
    networks: NetworkOptions | None = None,
    save: PathLike | None = None,
) -> LatencyTable:
    """Measure everything in the subjects that runs on this machine, in one table; candidates of one batch take turns.

    Args:
        subjects: bundles (opened or paths), fixed-size `.onnx` files, engines, and networks from any model source,
            which are exported first, and ONNX files with dynamic axes, which are fixed first; see `load_source`.
        batches: batch sizes to measure; all that there are by default, 1 of networks.
        sizes: image sizes to measure, one side or (height, width); all that there are by default. Networks: the first.
        backends: "onnxruntime", "openvino", "tensorrt", or "torch" and "torch-cuda" for networks in torch itself
            (evaluation mode, `inference_mode`); by default every one of the processor that is installed, and those that
            some artifact was made for.
        seconds: timed seconds per row.
        threads: threads of a CPU backend; one for each physical core when None; "sweep" tries several numbers and takes
            the fastest for each row. Each is pinned to a core of its own.
        baseline: the candidate that the others of its image size are compared with; the first by default.
        end_to_end: time everything from a decoded 1920x1080 frame to the decoded answer, instead of the model alone.
        mode: "latency" (calls wait for each other), "throughput" (requests in flight on all cores), "single-stream" or
            "offline" (as in MLPerf).
        device: "ssh://[user@]host[:port]" measures there instead and brings the table back.
        networks: of subjects that are networks.
        save: file that the table is written to after each batch size.

    Returns:
        a table; `describe()` prints it, `save(path)` keeps it. A batch that does not fit, is killed or raises is a row
        of `missing`.

    Raises:
        UsageError: nothing in it runs here, or it has no such batch, size or baseline.
        BackendError: a backend is absent, or none of the subjects runs, or the board cannot be reached.
        BundleError: the bundle is damaged.

    Example:
        >>> table = bench("model.eightfold", "other.onnx", batches=[1, 8])  # doctest: +SKIP
        >>> print(table.describe())  # doctest: +SKIP
    """
    if not subjects:
        raise UsageError("nothing to measure", allowed="a bundle, a model file or a network")
    if device is not None:
        wanted = None if sizes is None else [size_of(size) for size in sizes]
        request = Request(batches, wanted, backends, seconds, threads, baseline, end_to_end, mode)
        return _on_device(subjects, device, request)
    options = BenchOptions(Schedule(seconds=seconds), end_to_end=end_to_end, save=save, mode=mode).with_threads(threads)
    with scratch_folder() as folder:
        groups: list[list[Candidate]] = []
        for place, subject in enumerate(subjects):
            inside = folder / str(place)
            inside.mkdir()
            found = _candidates(
                subject, backends, batches, sizes, networks or NetworkOptions(), inside, several=len(subjects) > 1
            )
            groups.append(found)
        _require_rows(groups, subjects, backends)
        groups = _told_apart(groups, subjects)
        chosen = at_batches([each for group in groups for each in group], batches)
        return compare_latency(chosen, baseline=baseline, options=options, absent=_absent(groups, batches))


def _require_rows(
    groups: Sequence[Sequence[Candidate]], subjects: Sequence[Subject], backends: Sequence[str] | None
) -> None:
    """Refuse a file or bundle that none of the requested back ends takes: its row would be missing without a word."""
    for group, subject in zip(groups, subjects, strict=True):
        if backends and not group:
            able = ", ".join(backends_for(subject))
            torch = set(backends) & set(TORCH)
            raise UsageError(
                f"{subject.path if isinstance(subject, Bundle) else subject} does not run on {' or '.join(backends)}"
                + (", which takes networks that are not exported" if torch else ""),
                allowed=f"{able} here" if able else "nothing that is installed here",
                remedy="leave --backend out" if able else "run: eightfold doctor",
            )


def _on_device(subjects: Sequence[Subject], device: str, request: Request) -> LatencyTable:
    if len(subjects) > 1:
        raise UsageError(f"{len(subjects)} subjects on {device}", allowed="one bundle or model file on a board")
    return bench_on(device, subjects[0].path if isinstance(subjects[0], Bundle) else subjects[0], request)


def is_network(subject: Subject) -> bool:
    """True if a subject is a network of some model source, and neither a bundle nor a file that a backend opens."""
    if isinstance(subject, Bundle):
        return False
    path = Path(subject)
    if is_model_file(subject):
        return is_dynamic(path)
    if (path / "manifest.json").is_file() or path.suffix == ".eightfold":
        return False
    return any(source.takes(str(subject)) for source in SOURCES) or not path.exists()


def _candidates(
    subject: Subject,
    backends: Sequence[str] | None,
    batches: Sequence[int] | None,
    sizes: Sequence[int | Size] | None,
    networks: NetworkOptions,
    folder: Path,
    *,
    several: bool,
) -> list[Candidate]:
    if isinstance(subject, Bundle) or not is_network(subject):
        others = None if backends is None else [name for name in backends if name not in TORCH]
        if others == []:
            return []
        return at_sizes(candidates_of(subject, others), sizes)
    size = None if not sizes else size_of(sizes[0])
    asked = SourceOptions(networks.num_classes, size, networks.weights, networks.inputs)
    loaded = load_source(str(subject), options_for(str(subject), asked) if several else asked)
    names = list(backends or cpu_backends() or ("onnxruntime",))
    wanted = list(batches or (1,))
    made = _exported(loaded, wanted, [name for name in names if name not in TORCH], folder)
    for backend in (name for name in names if name in TORCH):
        backend_named(backend)
        made += [
            Candidate(
                f"{loaded.name} {backend}",
                write_torch_model(loaded, batch, networks.weights, folder / f"b{batch}{SUFFIX}"),
                batch=batch,
                backend=backend,
                size=loaded.size,
            )
            for batch in wanted
        ]
    return made


def _exported(loaded: LoadedModel, batches: Sequence[int], backends: Sequence[str], folder: Path) -> list[Candidate]:
    """The network as a simplified graph at each batch, for each backend."""
    if not backends:
        return []
    from eightfold.export.fixed_size.fix_shapes import freeze_onnx
    from eightfold.export.simplify.simplify import simplify
    from eightfold.export.torch.onnx_export import export_onnx

    if loaded.exportable:
        raise ModelError(
            f"{loaded.source} cannot be exported: {loaded.exportable}", allowed="--backend torch", remedy="give that"
        )
    made = []
    for batch in batches:
        path = folder / f"{loaded.name}-b{batch}.onnx"
        if isinstance(loaded.network, Path):
            simplify(freeze_onnx(loaded.network, path, batch=batch, image_size=loaded.size))
        else:
            channels = loaded.preprocess.channels
            simplify(export_onnx(loaded.network, path, batch=batch, image_size=loaded.size, channels=channels))
        made += [
            Candidate(f"{loaded.name} {backend}", path, batch=batch, backend=backend, size=loaded.size)
            for backend in backends
        ]
    return made


def _told_apart(groups: list[list[Candidate]], subjects: Sequence[Subject]) -> list[list[Candidate]]:
    """The candidates with the ends of their subjects' paths in front, where two subjects have a name in common."""
    if len(groups) == 1:
        return groups
    named = [_named(group, subject, place) for place, (group, subject) in enumerate(zip(groups, subjects, strict=True))]
    names = [{each.name for each in group} for group in named]
    if sum(map(len, names)) == len(set().union(*names)):
        return named
    paths = [str(each.path if isinstance(each, Bundle) else each) for each in subjects]
    return [
        [
            dataclasses.replace(each, name=f"{name} {each.backend if each.bundle is None else each.name}")
            for each in group
        ]
        for name, group in zip(distinct_names(paths), groups, strict=True)
    ]


def _absent(groups: Sequence[Sequence[Candidate]], batches: Sequence[int] | None) -> list[MissingRow]:
    """A row for each batch that others have and a candidate does not."""
    rows: list[MissingRow] = []
    for group in groups if batches is not None else ():
        have = {name: [each.batch for each in group if each.name == name] for name in {each.name: 0 for each in group}}
        rows += [
            MissingRow(name=name, batch=batch, reason=f"has batch {', '.join(map(str, sorted(own)))} only")
            for name, own in have.items()
            for batch in batches or ()
            if batch not in own
        ]
    return rows


def _named(candidates: list[Candidate], subject: Subject, place: int) -> list[Candidate]:
    """Names that tell most subjects apart: those of bundles get the bundle's name in front."""
    if not candidates or candidates[0].bundle is None:
        return candidates
    name = subject.manifest.name if isinstance(subject, Bundle) else Path(subject).stem or str(place)
    return [dataclasses.replace(each, name=f"{name} {each.name}") for each in candidates]
