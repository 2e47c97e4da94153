"""Image files to RGB pixels, through OpenCV: EXIF rotation applied, 16 bits kept, palettes expanded, grey repeated,
alpha dropped; and `.npy` files, for images of other channels. A file that ends too early is refused, not filled up with
grey as decoders do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from eightfold.calib.images.resize import Pixels
from eightfold.errors import ImageError
from eightfold.extras import require
from eightfold.files import IMAGE_SUFFIXES, PathLike

ARRAY_SUFFIX = ".npy"
SUFFIXES = IMAGE_SUFFIXES
ARRAYS = "an array (height, width) or (height, width, channels) of uint8 or uint16"


def images_in(folder: Path, *, deep: bool = True) -> list[Path]:
    """The image files of a folder in name order; of the folders in it as well when `deep`, behind links, too.

    What is hidden is passed over: other systems and editors leave `._photo.jpg` and `.ipynb_checkpoints/` behind.
    """
    found = _files_below(folder) if deep else folder.iterdir()
    return image_files(sorted(path for path in found if not _hidden(path, folder)))


def _files_below(folder: Path) -> Iterator[Path]:
    """As `rglob`, which leaves out folders behind symbolic links. A folder that lies in itself is entered once."""
    above: dict[Path, tuple[Path, ...]] = {folder: (folder.resolve(),)}
    for name, folders, files in os.walk(folder, followlinks=True):
        here = Path(name)
        real = above.pop(here)
        for each in list(folders):
            below = (here / each).resolve()
            if below in real:
                folders.remove(each)
            else:
                above[here / each] = (*real, below)
        yield from (here / each for each in files)


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Those of `paths` that are images. Arrays count where there are no pictures: beside these they are labels."""
    found = [path for path in paths if path.suffix.lower() in SUFFIXES]
    return [path for path in found if path.suffix.lower() != ARRAY_SUFFIX] or found


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def read_image(path: PathLike, *, as_stored: bool = False) -> Pixels:
    """The pixels of an image file: (H, W, 3) RGB; of an .npy file the array in it.

    Args:
        path: the file.
        as_stored: keep the channels that the file has, in the order R, G, B, alpha where it has these, and turn nothing
            by EXIF; a `Preprocess` of "as-is" channels wants that.

    Returns:
        (H, W, channels) uint8, or uint16 for files of more than 8 bits a channel.

    Raises:
        ImageError: absent, empty, cut off, or not an image.
        MissingExtraError: OpenCV is not installed.
    """
    if Path(path).suffix.lower() == ARRAY_SUFFIX:
        return _read_array(Path(path))
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path} ({error.strerror})", allowed="an image file") from None
    return decode_image(data, name=str(path), as_stored=as_stored)


def _read_array(path: Path) -> Pixels:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ImageError(f"cannot read {path} ({error.strerror or 'damaged'})", allowed="an .npy file") from None
    except (ValueError, EOFError):  # cut off, another file under that name, or one of Python objects
        raise ImageError(f"{path} is not a complete .npy file of numbers", allowed=ARRAYS) from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or array.dtype not in (np.uint8, np.uint16):
        seen = f"type {array.dtype} and shape {array.shape}" if isinstance(array, np.ndarray) else "several arrays"
        raise ImageError(f"{path} holds {seen}", allowed=ARRAYS, remedy="scale it to one of these types")
    return np.ascontiguousarray(array)


def decode_image(data: bytes, *, name: str, as_stored: bool = False) -> Pixels:
    """`read_image` for the bytes of an encoded image. `name` is what errors call it."""
    cv2 = require("cv2", "decode image files")
    if not data:
        raise ImageError(f"{name} is empty", allowed="an image file")
    if _is_cut_off(data):
        raise ImageError(f"{name} is truncated after {len(data)} bytes", allowed="a whole image file")
    how = cv2.IMREAD_UNCHANGED if as_stored else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:  # such as a header that promises more pixels than OpenCV allows
        pixels = None
    if pixels is None or 0 in pixels.shape:
        raise ImageError(f"{name} is not an image that can be decoded", allowed=", ".join(sorted(SUFFIXES)))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} holds values of type {pixels.dtype}", allowed="8 or 16 bits a channel")
    return _in_rgb_order(pixels)


def _in_rgb_order(pixels: Pixels) -> Pixels:
    """OpenCV has the first three channels of colour images as B, G, R."""
    if pixels.ndim == 2:
        return pixels[..., None]
    order = [2, 1, 0, *range(3, pixels.shape[2])] if pixels.shape[2] in (3, 4) else list(range(pixels.shape[2]))
    return np.ascontiguousarray(pixels[..., order])


def _is_cut_off(data: bytes) -> bool:
    """True if the format's end marker is missing, for formats whose decoders accept that."""
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
