"""The C interface of the C++ runtime through ctypes: what any other language would do."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMATS = {"rgb": 0, "bgr": 1, "grey": 2, "rgba": 3, "bgra": 4}
STATUS = ("ok", "usage", "image", "bundle", "integrity", "missing_backend", "backend", "build", "internal")
Handle = ctypes.c_void_p


class Options(ctypes.Structure):
    _fields_ = (
        ("backend", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("variant", ctypes.c_char_p),
        ("provider", ctypes.c_char_p),
        ("batch", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("preprocess_threads", ctypes.c_int32),
        ("in_flight", ctypes.c_int32),
        ("device", ctypes.c_int32),
    )


class Image(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("stride", ctypes.c_size_t),
    )


class Class(ctypes.Structure):
    _fields_ = (("index", ctypes.c_int32), ("probability", ctypes.c_float))


class Detection(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_float) for name in ("x1", "y1", "x2", "y2", "score")), ("label", ctypes.c_int32))


class NativeError(Exception):
    """A status that is not EIGHTFOLD_OK, by its name, and the message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = STATUS[status]
        super().__init__(message)


_SIZES = (
    "engine_row_bytes",
    *(f"result_{part}" for part in ("count", "classes", "detections", "segments", "alpha")),
)


def load_library(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(os.fspath(path))
    library.eightfold_version.restype = ctypes.c_char_p
    library.eightfold_last_error.restype = ctypes.c_char_p
    library.eightfold_engine_describe.restype = ctypes.c_char_p
    library.eightfold_engine_label.restype = ctypes.c_char_p
    for name in _SIZES:
        getattr(library, f"eightfold_{name}").restype = ctypes.c_size_t
    return library


def image_of(pixels: NDArray[np.uint8], format: str = "rgb") -> Image:
    """A view of (H, W[, C]) pixels, which may be a part of a wider image."""
    return Image(pixels.ctypes.data, pixels.shape[1], pixels.shape[0], FORMATS[format], pixels.strides[0])


class NativeEngine:
    """A handle of an engine. Raises NativeError where the C functions return an error."""

    def __init__(self, library: ctypes.CDLL, path: Path, **options: Any) -> None:
        self.library = library
        self.handle = Handle()
        encoded = {name: value.encode() if isinstance(value, str) else value for name, value in options.items()}
        self._check(
            library.eightfold_engine_load(
                os.fsencode(path), ctypes.byref(Options(**encoded)), ctypes.byref(self.handle)
            )
        )

    def __del__(self) -> None:
        self.library.eightfold_engine_free(self.handle)

    def describe(self) -> str:
        text: bytes = self.library.eightfold_engine_describe(self.handle)
        return text.decode()

    def label(self, index: int) -> str | None:
        text: bytes | None = self.library.eightfold_engine_label(self.handle, index)
        return None if text is None else text.decode()

    def preprocess(self, pixels: NDArray[np.uint8], format: str = "rgb") -> NDArray[np.uint8]:
        """The bytes of one row of the model's input."""
        tensor = np.empty(self.library.eightfold_engine_row_bytes(self.handle), np.uint8)
        image = image_of(pixels, format)
        self._check(
            self.library.eightfold_engine_preprocess(
                self.handle, ctypes.byref(image), tensor.ctypes.data_as(ctypes.c_void_p)
            )
        )
        return tensor

    def run(self, images: list[NDArray[np.uint8]], format: str = "rgb") -> NativeResult:
        views = (Image * len(images))(*(image_of(pixels, format) for pixels in images))
        result = Handle()
        self._check(self.library.eightfold_engine_run(self.handle, views, len(images), ctypes.byref(result)))
        return NativeResult(self.library, result)

    def _check(self, status: int) -> None:
        if status:
            raise NativeError(status, self.library.eightfold_last_error().decode())


class NativeResult:
    """A handle of the predictions of one run."""

    def __init__(self, library: ctypes.CDLL, handle: Handle) -> None:
        self.library, self.handle = library, handle

    def __del__(self) -> None:
        self.library.eightfold_result_free(self.handle)

    def __len__(self) -> int:
        return int(self.library.eightfold_result_count(self.handle))

    def classes(self, image: int) -> list[tuple[int, float]]:
        return [(each.index, each.probability) for each in self._part("classes", image, Class)]

    def detections(self, image: int) -> NDArray[np.float32]:
        """(n, 6): x1, y1, x2, y2, score, class."""
        rows = [
            [getattr(each, name) for name, _ in each._fields_] for each in self._part("detections", image, Detection)
        ]
        return np.array(rows, np.float32).reshape(-1, 6)

    def segments(self, image: int) -> NDArray[np.uint8]:
        return np.array(self._part("segments", image, ctypes.c_uint8), np.uint8)

    def alpha(self, image: int) -> NDArray[np.float32]:
        return np.array(self._part("alpha", image, ctypes.c_float), np.float32)

    def _part(self, name: str, image: int, kind: Any) -> list[Any]:
        first = ctypes.POINTER(kind)()
        count = getattr(self.library, f"eightfold_result_{name}")(
            self.handle, ctypes.c_size_t(image), ctypes.byref(first)
        )
        return list(first[:count])
