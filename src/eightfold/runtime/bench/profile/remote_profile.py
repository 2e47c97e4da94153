"""Profiles on other machines, over ssh, several at once. Points come home as they are measured, so that a machine that
drops out loses nothing, and the same call goes on where it was."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from eightfold.errors import BackendError, EightfoldError, UsageError, one_of
from eightfold.extras import require
from eightfold.files import PathLike, sha256_of_bytes
from eightfold.runtime.backends.cache_folder import cache_folder
from eightfold.runtime.bench.profile.layer_list import SUFFIX, LayerList
from eightfold.runtime.bench.profile.profile_layers import LayerProfile, profile_layers
from eightfold.runtime.bench.profile.settings import PRECISIONS, ProfileSettings
from eightfold.runtime.bench.profile.store import ProfileStore, header_line, settings_in, settings_of
from eightfold.runtime.bench.ssh import Address, Board
from eightfold.text_table import text_table

PROGRAM = "eightfold"
AT_ONCE = 32  # devices


@dataclass(frozen=True)
class DeviceJob:
    """A profile to make on a device.

    Attributes:
        device: "ssh://[user@]host[:port]".
        target: by default onnxruntime on that device's processor.
        threads: by default the physical cores there.
    """

    device: str
    target: str | None = None
    precision: str = "fp32"
    threads: int | None = None

    def __post_init__(self) -> None:
        Address.parse(self.device)
        one_of("precision of a profile", self.precision, PRECISIONS)

    @property
    def words(self) -> list[str]:
        """Arguments of `eightfold profile`."""
        found = ["--precision", self.precision]
        found += [] if self.target is None else ["--target", self.target]
        return found + ([] if self.threads is None else ["--threads", str(self.threads)])

    @property
    def file_name(self) -> str:
        """A name for its file that tells the device, and is another for each job."""
        digest = sha256_of_bytes(" ".join([self.device, *self.words]).encode())[:8]
        return re.sub(r"[^\w.-]+", "-", self.device.removeprefix("ssh://")) + f"-{digest}.jsonl"

    def command(self) -> str:
        """The command that makes the same profile."""
        return shlex.join(["eightfold", "profile", "MODEL", *self.words, "--device", self.device])


@dataclass
class DeviceResult:
    """Result of a job.

    Attributes:
        path: file of the points, kept whatever happened.
        points: number of points in it.
        new: points that were measured now.
        failed: why it is not whole; "" where it is.
    """

    job: DeviceJob
    path: Path
    points: int = 0
    new: int = 0
    profile: LayerProfile | None = None
    failed: str = ""


@dataclass
class _Stop:
    """Ends running jobs."""

    boards: list[Board] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: bool = False

    @contextlib.contextmanager
    def running(self, board: Board) -> Iterator[None]:
        with self.lock:
            self.boards.append(board)
            asked = self.asked
        if asked:
            raise BackendError("interrupted")
        try:
            yield
        finally:
            with self.lock:
                self.boards.remove(board)

    def ask(self) -> None:
        with self.lock:
            self.asked = True
            for board in self.boards:
                board.interrupt()


def profile_devices(
    layers: LayerList,
    jobs: Sequence[DeviceJob],
    folder: PathLike | None = None,
    *,
    said: Callable[[DeviceResult], object] = lambda result: None,
) -> list[DeviceResult]:
    """Profile a network's layers on several devices at once, in the order of `jobs`.

    A device that fails has its reason in the result; its points so far are kept. On Ctrl-C the devices are stopped, and
    the results hold what came until then.

    Args:
        folder: for a file per device; the user's cache by default.
        said: called with each result as it comes.
    """
    place = _folder(folder)
    stop = _Stop()

    def run(job: DeviceJob) -> DeviceResult:
        result = _profile_on(layers, job, place / job.file_name, stop)
        said(result)
        return result

    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(jobs)))) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            stop.ask()
            return [future.result() for future in futures]


def cached_file(job: DeviceJob) -> Path:
    """The file of a job in the user's cache."""
    return _folder(None) / job.file_name


def profile_on(layers: LayerList, job: DeviceJob, path: Path) -> DeviceResult:
    """Profile on one device, into a file.

    Raises:
        BackendError: the file is of another device, version or precision; or what ssh or the device said.
    """
    result = _profile_on(layers, job, path, _Stop(), replaced=False)
    if result.failed:
        raise BackendError(result.failed)
    return result


def _folder(folder: PathLike | None) -> Path:
    place = Path(folder) if folder is not None else cache_folder("profiles")
    if place is None:
        place = Path(tempfile.mkdtemp(prefix="eightfold-profiles-"))
    place.mkdir(parents=True, exist_ok=True)
    return place


def _profile_on(layers: LayerList, job: DeviceJob, path: Path, stop: _Stop, *, replaced: bool = True) -> DeviceResult:
    result = DeviceResult(job, path)
    try:
        with Board(Address.parse(job.device)) as board, stop.running(board):
            _require_program(board, job)
            known = f"{board.folder}/known.jsonl"
            with tempfile.TemporaryDirectory() as here:
                board.upload(layers.save(Path(here) / f"list{SUFFIX}"))
                if path.exists():
                    copy = Path(here) / "known.jsonl"
                    copy.write_bytes(path.read_bytes())
                    board.upload(copy)
            words = [PROGRAM, "profile", f"{board.folder}/list{SUFFIX}", *job.words, "-o", known, "--stream"]
            settings = _keep(board.lines(shlex.join(words)), job, path, result, replaced=replaced)
        result.profile = profile_layers(layers.widest(), ProfileStore(settings, path))
    except EightfoldError as error:
        result.failed = "interrupted; the points so far are kept" if stop.asked else str(error)
    if path.exists():
        result.points = max(0, sum(1 for line in path.read_text().splitlines() if '"widths"' in line))
    return result


def _require_program(board: Board, job: DeviceJob) -> None:
    if not board.output(f"command -v {PROGRAM} || true"):
        raise BackendError(
            f"{job.device} has no {PROGRAM} on its PATH", remedy="there, run: pip install 'eightfold[cpu]' onnx"
        )


def _keep(lines: Iterator[str], job: DeviceJob, path: Path, result: DeviceResult, *, replaced: bool) -> ProfileSettings:
    """Append lines to the file as they come; returns the settings, which come first."""
    header = next(lines, "")
    settings = settings_in(header, job.device)
    if path.exists() and settings_of(path) != settings:
        if not replaced:
            # The device measures all anew, but nobody waits for it.
            _other(settings_of(path), settings, path, job)
        path.unlink()
    if not path.exists():
        path.write_text(header_line(settings) + "\n")
    with path.open("a") as file:
        for line in lines:
            file.write(line + "\n")
            file.flush()
            result.new += '"widths"' in line
    return settings


def _other(seen: ProfileSettings, wanted: ProfileSettings, path: Path, job: DeviceJob) -> None:
    names = [name for name in ProfileSettings.model_fields if getattr(seen, name) != getattr(wanted, name)]
    raise BackendError(
        f"{path} was measured with {names[0].replace('_', ' ')} {getattr(seen, names[0])!r}",
        allowed=repr(getattr(wanted, names[0])),
        remedy=f"name another file: {job.command()} -o FILE",
    )


def jobs_of(devices: Sequence[str], target: str | None, precision: str, threads: int | None) -> list[DeviceJob]:
    """Jobs of URLs and of .yaml files.

    A file holds `devices`, a list of URLs, or of mappings with `device` and, where they differ from the command's own,
    `target`, `precision` and `threads`.

    Raises:
        UsageError: no such file, another content, or one job twice.
    """
    jobs: list[DeviceJob] = []
    for device in devices:
        if device.endswith((".yaml", ".yml")):
            jobs += [_job(each, device, target, precision, threads) for each in _listed(Path(device))]
        else:
            jobs.append(DeviceJob(device, target, precision, threads))
    twice = {job.device for job in jobs if jobs.count(job) > 1}
    if twice:
        raise UsageError(f"{min(twice)} is named twice", allowed="each device once for each target and precision")
    return jobs


def _listed(path: Path) -> list[object]:
    yaml = require("yaml", "read a file of devices")
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read ({type(error).__name__})", allowed="a YAML file of devices") from None
    listed = data.get("devices") if isinstance(data, dict) else None
    if not isinstance(listed, list) or not listed:
        raise UsageError(f"{path} names no devices", allowed="devices: [ssh://[user@]host[:port], ...]")
    return listed


def _job(entry: object, path: str, target: str | None, precision: str, threads: int | None) -> DeviceJob:
    keys = {"device", "target", "precision", "threads"}
    if isinstance(entry, str):
        return DeviceJob(entry, target, precision, threads)
    if not isinstance(entry, dict) or not isinstance(entry.get("device"), str) or entry.keys() - keys:
        raise UsageError(f"{path}: an entry {entry!r}", allowed=f"a URL, or the keys {', '.join(sorted(keys))}")
    return DeviceJob(
        entry["device"],
        entry.get("target", target),
        entry.get("precision", precision),
        entry.get("threads", threads),
    )


def describe_devices(results: Sequence[DeviceResult], counts: Callable[[LayerProfile], float]) -> str:
    """A table of all devices.

    Args:
        counts: sum of a network's layers in milliseconds, by a profile.
    """
    head = ("device", "target", "precision", "points", "new", "step", "sum of layers, ms", "")
    rows = [head]
    for result in results:
        profile = result.profile
        rows.append(
            (
                result.job.device,
                profile.settings.target if profile else result.job.target or "-",
                result.job.precision,
                str(result.points),
                str(result.new),
                "-" if profile is None else str(profile.steps[1]),
                "-" if profile is None else f"{counts(profile):.3f}",
                result.failed or "",
            )
        )
    return "\n".join(text_table(rows, left={0, 1, 2, 7}))
