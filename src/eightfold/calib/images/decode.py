"""Image files to RGB pixels, through OpenCV: EXIF rotation applied, 16 bits cut to the high 8, palettes expanded, grey
repeated, alpha dropped. A file that ends too early is refused, not filled up with grey as decoders do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eightfold.calib.images.resize import Pixels
from eightfold.errors import ImageError
from eightfold.extras import require
from eightfold.files import PathLike

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def images_in(folder: Path, *, deep: bool = True) -> list[Path]:
    """The image files of a folder in name order; of the folders in it as well when `deep`.

    What is hidden is passed over: other systems and editors leave `._photo.jpg` and `.ipynb_checkpoints/` behind.
    """
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not _hidden(path, folder))


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def read_image(path: PathLike) -> Pixels:
    """(H, W, 3) uint8 RGB of an image file.

    Raises:
        ImageError: absent, empty, cut off, or not an image.
        MissingExtraError: OpenCV is not installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path} ({error.strerror})", allowed="an image file") from None
    return decode_image(data, name=str(path))


def decode_image(data: bytes, *, name: str) -> Pixels:
    """(H, W, 3) uint8 RGB of an encoded image. `name` is what errors call it."""
    cv2 = require("cv2", "decode image files")
    if not data:
        raise ImageError(f"{name} is empty", allowed="an image file")
    if _is_cut_off(data):
        raise ImageError(f"{name} is truncated after {len(data)} bytes", allowed="a whole image file")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # such as a header that promises more pixels than OpenCV allows
        pixels = None
    if pixels is None or 0 in pixels.shape:
        raise ImageError(f"{name} is not an image that can be decoded", allowed=", ".join(sorted(SUFFIXES)))
    rgb: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return rgb


def _is_cut_off(data: bytes) -> bool:
    """Whether the format's end marker is missing, for the formats whose decoders do not mind."""
    if data.startswith(b"\xff\xd8"):
        return data.find(b"\xff\xd9", _start_of_scan(data)) < 0
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    return False


def _start_of_scan(data: bytes) -> int:
    """Offset of a JPEG's first scan. A thumbnail before it has an end marker of its own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at
