"""The C interface of the C++ runtime through ctypes: what any other language would do."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMATS = {"rgb": 0, "bgr": 1, "grey": 2, "rgba": 3, "bgra": 4, "stored": 5}
PIXELS = {"uint8": 0, "uint16": 1}
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
        ("public_key", ctypes.c_char_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
    )


class Image(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("stride", ctypes.c_size_t),
        ("stored_channels", ctypes.c_int32),
        ("type", ctypes.c_int32),
    )


class Class(ctypes.Structure):
    _fields_ = (("label", ctypes.c_int32), ("score", ctypes.c_float))


class Detection(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_float) for name in ("x1", "y1", "x2", "y2", "score")), ("label", ctypes.c_int32))


class Mask(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("left", "top", "width", "height")),
        ("pixels", ctypes.POINTER(ctypes.c_uint8)),
    )


class Keypoint(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_float) for name in ("x", "y", "score"))


class Corners(ctypes.Structure):
    _fields_ = tuple((f"{axis}{corner}", ctypes.c_float) for corner in (1, 2, 3, 4) for axis in "xy")


class Picture(ctypes.Structure):
    _fields_ = (("width", ctypes.c_int32), ("height", ctypes.c_int32), ("pixels", ctypes.POINTER(ctypes.c_uint8)))


DTYPES = tuple(map(np.dtype, ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
    )


class NativeError(Exception):
    """A status that is not EIGHTFOLD_OK, by its name, and the message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = STATUS[status]
        super().__init__(message)


_SIZES = (
    "engine_row_bytes",
    "engine_inputs",
    "tensors_list",
    *(f"result_{part}" for part in ("count", "classes", "detections", "segments", "alpha", "depth")),
    *(f"result_{part}" for part in ("masks", "keypoints", "corners", "pictures")),
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


def image_of(pixels: NDArray[Any], format: str = "rgb") -> Image:
    """A view of (H, W[, C]) pixels of 8 or 16 bits, which may be a part of a wider image."""
    height, width, *channels = pixels.shape
    data, stride, kind = pixels.ctypes.data, pixels.strides[0], PIXELS[pixels.dtype.name]
    return Image(data, width, height, FORMATS[format], stride, channels[0] if channels else 1, kind)


def tensor_of(array: NDArray[Any]) -> Tensor:
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    return Tensor(None, DTYPES.index(array.dtype), shape, array.ndim, array.ctypes.data, array.nbytes)


def array_of(tensor: Tensor) -> NDArray[Any]:
    shape = tensor.shape[: tensor.rank]
    return np.frombuffer(ctypes.string_at(tensor.data, tensor.bytes), DTYPES[tensor.type]).reshape(shape)


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

    def preprocess(self, pixels: NDArray[Any], format: str = "rgb") -> NDArray[np.uint8]:
        """The bytes of one row of the model's input."""
        tensor = np.empty(self.library.eightfold_engine_row_bytes(self.handle), np.uint8)
        image = image_of(pixels, format)
        self._check(
            self.library.eightfold_engine_preprocess(
                self.handle, ctypes.byref(image), tensor.ctypes.data_as(ctypes.c_void_p)
            )
        )
        return tensor

    def run(self, images: list[NDArray[Any]], format: str = "rgb") -> NativeResult:
        views = (Image * len(images))(*(image_of(pixels, format) for pixels in images))
        result = Handle()
        self._check(self.library.eightfold_engine_run(self.handle, views, len(images), ctypes.byref(result)))
        return NativeResult(self.library, result)

    def run_tensors(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        views, outputs = (Tensor * len(inputs))(*map(tensor_of, inputs)), Handle()
        self._check(self.library.eightfold_engine_run_tensors(self.handle, views, len(inputs), ctypes.byref(outputs)))
        first = ctypes.POINTER(Tensor)()
        count = self.library.eightfold_tensors_list(outputs, ctypes.byref(first))
        arrays = [array_of(each) for each in first[:count]]
        self.library.eightfold_tensors_free(outputs)
        return arrays

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
        return [(each.label, each.score) for each in self._part("classes", image, Class)]

    def detections(self, image: int) -> NDArray[np.float32]:
        """(n, 6): x1, y1, x2, y2, score, class."""
        return self._floats("detections", image, Detection)

    def segments(self, image: int) -> NDArray[np.uint8]:
        return np.array(self._part("segments", image, ctypes.c_uint8), np.uint8)

    def alpha(self, image: int) -> NDArray[np.float32]:
        return np.array(self._part("alpha", image, ctypes.c_float), np.float32)

    def depth(self, image: int) -> NDArray[np.float32]:
        return np.array(self._part("depth", image, ctypes.c_float), np.float32)

    def masks(self, image: int) -> list[tuple[int, int, NDArray[np.uint8]]]:
        """Left, top and pixels of each."""
        found = self._part("masks", image, Mask)
        return [(each.left, each.top, _pixels(each.pixels, each.height, each.width)) for each in found]

    def keypoints(self, image: int) -> NDArray[np.float32]:
        """(n, 3): x, y, visibility."""
        return self._floats("keypoints", image, Keypoint)

    def corners(self, image: int) -> NDArray[np.float32]:
        """(n, 8)."""
        return self._floats("corners", image, Corners)

    def picture(self, image: int) -> NDArray[np.uint8]:
        (made,) = self._part("pictures", image, Picture)
        return _pixels(made.pixels, made.height, made.width, 3)

    def _floats(self, name: str, image: int, kind: Any) -> NDArray[np.float32]:
        fields = [field for field, _ in kind._fields_]
        rows = [[getattr(each, field) for field in fields] for each in self._part(name, image, kind)]
        return np.array(rows, np.float32).reshape(-1, len(fields))

    def _part(self, name: str, image: int, kind: Any) -> list[Any]:
        first = ctypes.POINTER(kind)()
        count = getattr(self.library, f"eightfold_result_{name}")(
            self.handle, ctypes.c_size_t(image), ctypes.byref(first)
        )
        return list(first[:count])


def _pixels(first: Any, *shape: int) -> NDArray[np.uint8]:
    count = int(np.prod(shape))
    return np.array(first[:count], np.uint8).reshape(shape)
