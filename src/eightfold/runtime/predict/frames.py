"""Reads pictures from image files, folders of them, video files, cameras and network streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eightfold.calib.images.decode import SUFFIXES, images_in, read_image
from eightfold.calib.images.preprocess_rules import PreprocessRules
from eightfold.calib.images.resize import Pixels
from eightfold.calib.images.transform import require_fit
from eightfold.errors import ImageError
from eightfold.extras import require
from eightfold.files import PathLike

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
STREAM_SCHEMES = ("rtsp://", "rtmp://", "http://", "https://", "udp://")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture.

    Attributes:
        source: what it came from: a path, or a camera as "camera 0".
        pixels: (H, W, 3) uint8 RGB, or what a file holds instead: other channels, uint16.
        number: counts the frames of a stream from 0; None for a file of its own.
        fps: of the stream, where it tells.
    """

    source: str
    pixels: Pixels
    number: int | None = None
    fps: float | None = None

    @property
    def name(self) -> str:
        """Source, and number of the frame in it."""
        return self.source if self.number is None else f"{self.source} frame {self.number}"


def frames_of(
    sources: Iterable[PathLike],
    *,
    unreadable: Callable[[ImageError], object] | None = None,
    preprocess: PreprocessRules | None = None,
) -> Iterator[Frame]:
    """Pictures of several sources, one after the other.

    Args:
        sources: image files, folders (their images in name order, not those of folders inside), video files, camera
            numbers ("0"), or addresses of streams ("rtsp://...").
        unreadable: called for an image file that cannot be read, which is then passed over; None: it is raised.
        preprocess: image files that it does not take count as those that cannot be read.

    Raises ImageError naming what cannot be read.
    """
    for source in sources:
        yield from _frames(str(source), unreadable or _raise, preprocess)


def _raise(error: ImageError) -> None:
    raise error


def is_live(source: PathLike) -> bool:
    """True if pictures arrive as time passes, so that none may be kept waiting for others."""
    text = str(source)
    return text.isdigit() or text.startswith(STREAM_SCHEMES)


def _frames(
    source: str, unreadable: Callable[[ImageError], object], preprocess: PreprocessRules | None
) -> Iterator[Frame]:
    path = Path(source)
    if is_live(source) or path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video(source)
        return
    for image in _images_in(path) if path.is_dir() else [path]:
        try:
            pixels = read_for(preprocess, image)
        except ImageError as error:
            unreadable(error)
        else:
            yield Frame(str(image), pixels)


def read_for(preprocess: PreprocessRules | None, path: PathLike) -> Pixels:
    """The pixels of an image file that `preprocess` takes. Raises ImageError naming the file."""
    pixels = read_image(path, as_stored=preprocess is not None and preprocess.as_stored)
    if preprocess is not None:
        require_fit(preprocess, pixels, name=str(path))
    return pixels


def _images_in(folder: Path) -> list[Path]:
    found = images_in(folder, deep=False)
    if not found:
        raise ImageError(f"no images in {folder}", allowed=", ".join(sorted(SUFFIXES)))
    return found


def _video(source: str) -> Iterator[Frame]:
    cv2 = require("cv2", "read videos and cameras")
    name = f"camera {source}" if source.isdigit() else source
    if not is_live(source) and not Path(source).is_file():
        raise ImageError(f"there is no video {source}", allowed="a video file, a camera number or a stream's address")
    capture = _opened(cv2, source)
    try:
        if not capture.isOpened():
            raise ImageError(
                f"cannot open {name}", allowed="a camera that is connected, a video, or a stream's address"
            )
        fps = capture.get(cv2.CAP_PROP_FPS) or None
        for number, pixels in enumerate(_read(capture)):
            yield Frame(name, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), number, fps)
    finally:
        capture.release()


def _opened(cv2: Any, source: str) -> Any:
    """Suppresses OpenCV's messages about each failed way to open a camera: one error follows."""
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(int(source) if source.isdigit() else source)
    finally:
        logging.setLogLevel(level)


def _read(capture: Any) -> Iterator[NDArray[np.uint8]]:
    while True:
        there, pixels = capture.read()
        if not there:
            return
        yield pixels
