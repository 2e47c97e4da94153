"""Predicting files, folders, videos and cameras, and keeping the answers: as JSON lines, as annotated pictures."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from eightfold.errors import ImageError, UsageError
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path
from eightfold.json_types import JsonDict
from eightfold.runtime.postprocess.results import Result
from eightfold.runtime.predict.draw import draw
from eightfold.runtime.predict.frames import Frame, frames_of, is_live
from eightfold.runtime.predict.predictor import Predictor

DEFAULT_FPS = 25.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """A picture and the answer to it."""

    frame: Frame
    result: Result

    def to_dict(self) -> JsonDict:
        """JSON form, with the frame's source and size."""
        height, width = self.frame.pixels.shape[:2]
        number = {} if self.frame.number is None else {"frame": self.frame.number}
        return {"source": self.frame.source, **number, "size": [height, width], "result": self.result.to_dict()}

    def __str__(self) -> str:
        return f"{self.frame.name}: {self.result}"


def predict_sources(
    predictor: Predictor,
    sources: Sequence[PathLike],
    *,
    json_lines: PathLike | None = None,
    annotated: PathLike | None = None,
    limit: int | None = None,
    unreadable: Callable[[ImageError], object] | None = None,
) -> Iterator[Prediction]:
    """Predict pictures from anywhere, one answer after the other.

    Args:
        predictor: what answers.
        sources: image files, folders, video files, camera numbers, addresses of streams.
        json_lines: also write one JSON object per picture and line to this file; all at the end, or line by line where
            a source is live, which ends only by interruption.
        annotated: also write pictures with the answers drawn on them to this folder: each under its own name, videos
            and cameras as .mp4, which get their name when they are complete.
        limit: stop after so many pictures.
        unreadable: called for an image file that cannot be read, which is then passed over; None: that ends all.

    Example:
        >>> for prediction in predict_sources(predictor, ["frames/", "0"]):  # doctest: +SKIP
        ...     print(prediction)
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} pictures", allowed="1 or more")
    live = any(map(is_live, sources))
    largest = 1 if live else max(predictor.choice.batches)
    with contextlib.ExitStack() as stack:
        sinks = _sinks(stack, sources, json_lines, annotated, live)
        pictures = frames_of(sources, unreadable=unreadable, preprocess=predictor.preprocess)
        for frames in _chunks(itertools.islice(pictures, limit), largest):
            for frame, result in zip(frames, predictor.predict_batch([each.pixels for each in frames]), strict=True):
                prediction = Prediction(frame, result)
                for sink in sinks:
                    sink(prediction)
                yield prediction


Sink = Callable[[Prediction], None]


def _sinks(
    stack: contextlib.ExitStack,
    sources: Sequence[PathLike],
    json_lines: PathLike | None,
    annotated: PathLike | None,
    live: bool,
) -> list[Sink]:
    sinks: list[Sink] = []
    if json_lines is not None:
        path = Path(json_lines) if live else stack.enter_context(atomic_path(json_lines))
        sinks.append(_JsonLines(stack.enter_context(path.open("w", buffering=1))))
    if annotated is not None:
        sinks.append(stack.enter_context(contextlib.closing(_Annotated(Path(annotated), sources))))
    return sinks


class _JsonLines:
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __call__(self, prediction: Prediction) -> None:
        self._stream.write(json.dumps(prediction.to_dict()) + "\n")


class _Annotated:
    """Writes pictures as PNG or JPEG and streams as one video each.

    A video gets its name when it is complete, which the end of a camera's is only by interruption: what was recorded
    until then is kept.
    """

    def __init__(self, folder: Path, sources: Sequence[PathLike] = ()) -> None:
        self._cv2: Any = require("cv2", "write images")
        self._folder = folder
        self._written: set[Path] = set()
        self._videos: JsonDict = {}
        self._open = contextlib.ExitStack()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"cannot write pictures to {folder}: it is a file", allowed="a folder, new or existing")
        folder.mkdir(parents=True, exist_ok=True)
        read = (Path(each) if Path(each).is_dir() else Path(each).parent for each in sources)
        self._among_sources = folder.resolve() in {each.resolve() for each in read}

    def __call__(self, prediction: Prediction) -> None:
        frame = prediction.frame
        pixels = self._cv2.cvtColor(draw(frame.pixels, prediction.result), self._cv2.COLOR_RGB2BGR)
        if frame.number is not None:
            self._video(frame).write(pixels)
            return
        path = self._free_path(Path(frame.source))
        with atomic_path(path) as temporary:
            if not self._cv2.imwrite(str(temporary), pixels):
                raise ImageError(f"OpenCV cannot write {path}", allowed="a picture that fits its format")

    def close(self) -> None:
        self._open.close()

    def _free_path(self, source: Path) -> Path:
        """The source's own name, with a number where another source had it; never that of a source's file."""
        suffix = source.suffix if source.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        path = self._folder / (source.stem + suffix)
        if self._among_sources:
            path = path.with_name(f"{source.stem}-annotated{suffix}")
        return self._unused(path)

    def _unused(self, path: Path) -> Path:
        names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
        free = next(each for each in itertools.chain([path], names) if each not in self._written)
        self._written.add(free)
        return free

    def _video(self, frame: Frame) -> Any:
        if frame.source not in self._videos:
            stem = "".join(each if each.isalnum() or each in "-_" else "-" for each in Path(frame.source).stem)
            path = self._unused(self._folder / f"{stem}-annotated.mp4")
            with contextlib.ExitStack() as opening:
                temporary = opening.enter_context(atomic_path(path))
                self._videos[frame.source] = video = self._recorder(temporary, path, frame)
                opening.callback(video.release)  # before the file gets its name
                self._open.enter_context(opening.pop_all())
        return self._videos[frame.source]

    def _recorder(self, temporary: Path, path: Path, frame: Frame) -> Any:
        height, width = frame.pixels.shape[:2]
        code = self._cv2.VideoWriter.fourcc(*"mp4v")
        video = self._cv2.VideoWriter(str(temporary), code, frame.fps or DEFAULT_FPS, (width, height))
        if not video.isOpened():
            raise ImageError(f"OpenCV cannot record {path}", allowed="an OpenCV with an MPEG-4 encoder")
        return video


def _chunks(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, size)):
        yield chunk
