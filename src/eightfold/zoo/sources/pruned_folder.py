"""Folders that `eightfold prune` wrote as a model source."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

from eightfold.compress.surgery.source_record import MODEL, SOURCE, SourceRecord
from eightfold.errors import EightfoldError, ModelError
from eightfold.runtime.bundle.manifest import Task
from eightfold.runtime.bundle.sizes import Size
from eightfold.zoo.sources.base import LoadedModel, ModelSource, SourceOptions, SourceWarning, sized
from eightfold.zoo.user_code import find_modules


def onnx_file_of(text: str) -> Path | None:
    """The ONNX file that `text` names, or that is in the pruned folder that it names; None of a torch network."""
    if text.endswith(".onnx"):
        return Path(text)
    folder = Path(text)
    return folder / MODEL if (folder / SOURCE).is_file() and (folder / MODEL).is_file() else None


def source_in(record: SourceRecord, source: ModelSource) -> str:
    """The source of a record, with each path that leads nowhere from here as it was where the folder was written."""
    return source.with_paths(record.source, lambda path: path if Path(path).exists() else _there(record, path))


def _there(record: SourceRecord, path: str) -> str:
    found = Path(record.directory, path)
    return str(found) if record.directory and found.exists() else path


class PrunedFolderSource(ModelSource):
    """`FOLDER` with plan.json, weights and source.json: needs no option, since its record names the network."""

    name = "pruned"
    form = "PRUNED_FOLDER"
    gives = "a folder that eightfold prune wrote, with its pruned weights"
    extra = "compress"

    def __init__(
        self, source_of: Callable[[str], ModelSource], load_source: Callable[[str, SourceOptions], LoadedModel]
    ) -> None:
        """Takes the registry's look-ups, since the record of a pruned folder names another source."""
        self._source_of, self._load_source = source_of, load_source

    def takes(self, text: str) -> bool:
        return (Path(text) / SOURCE).is_file()

    def with_paths(self, text: str, change: Callable[[str], str]) -> str:
        return change(text)

    def brings_weights(self, text: str) -> bool:
        return True

    def takes_weights(self, text: str) -> bool:
        return False

    def task(self, text: str, size: Size) -> Task:
        record = SourceRecord.load(Path(text) / SOURCE)
        return record.task or self._source_of(record.source).task(self._source_in(record), size)

    def _source_in(self, record: SourceRecord) -> str:
        return source_in(record, self._source_of(record.source))

    def check(self, text: str) -> None:
        if (Path(text) / MODEL).is_file():
            from eightfold.compress.onnx.graph_file import require_prunable

            require_prunable(Path(text) / MODEL)

    def load(self, text: str, options: SourceOptions) -> LoadedModel:
        from eightfold.compress.surgery.artifacts import load_pruned

        folder = Path(text)
        record = SourceRecord.load(folder / SOURCE)
        if (folder / MODEL).is_file():
            return self._load_source(
                str(folder / MODEL), dataclasses.replace(options, size=options.size or record.size)
            )
        if record.runs_code:
            warnings.warn(f"{folder} imports your code: {record.source}", SourceWarning, stacklevel=4)
            find_modules(record.directory)
        asked = SourceOptions(
            num_classes=record.arguments.get("num_classes"),
            size=record.size,
            inputs=record.arguments.get("inputs", {}),
            seed=options.seed,
        )
        try:
            original = self._load_source(self._source_in(record), asked)
            network = load_pruned(lambda: original.module, folder)
        except EightfoldError as error:
            raise ModelError(
                f"{folder} was pruned from {record.source}, which does not load: {error.seen}",
                allowed=error.allowed,
                remedy=error.remedy,
            ) from None
        return dataclasses.replace(
            original,
            source=text,
            network=network,
            preprocess=sized(record.preprocess or original.preprocess, options.size),
            task=record.task or original.task,
            brings_weights=True,
            arguments={},
        )
