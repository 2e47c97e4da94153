"""Runs Debian's libdarknet in a process of its own: `python oracle.py CFG WEIGHTS INPUT.npy OUTPUT.npz`.

A process of its own, because Darknet ends the one that it runs in when it meets an error. Imports no torch.
"""

import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

LIBRARY = Path("/usr/lib/darknet/libdarknet.so")
Floats = npt.NDArray[np.float32]


class _Detection(ctypes.Structure):
    _fields_ = (
        ("box", ctypes.c_float * 4),
        ("classes", ctypes.c_int),
        ("prob", ctypes.POINTER(ctypes.c_float)),
        ("mask", ctypes.POINTER(ctypes.c_float)),
        ("objectness", ctypes.c_float),
        ("sort_class", ctypes.c_int),
    )


class _Image(ctypes.Structure):
    _fields_ = (
        ("w", ctypes.c_int),
        ("h", ctypes.c_int),
        ("c", ctypes.c_int),
        ("data", ctypes.POINTER(ctypes.c_float)),
    )


def darknet_outputs(
    cfg: Path, weights: Path, image: Floats, layers: Sequence[int], last: int, *, seconds: float = 120
) -> list[Floats]:
    """Outputs [c, h, w] of `layers`, then the first `last` values that `network_predict` gives, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npy"), Path(folder, "out.npz")
        np.save(source, image)
        command = [sys.executable, __file__, cfg, weights, source, target, ",".join(map(str, layers)), str(last)]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=seconds)
        assert done.returncode == 0, done.stderr[-500:]
        with np.load(target) as arrays:
            return [arrays[name] for name in arrays.files]


def darknet_boxes(cfg: Path, weights: Path, image: Floats, threshold: float, classes: int) -> Floats:
    """Rows (class, score, centre x, centre y, width, height in shares) of get_network_boxes, without suppression."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npy"), Path(folder, "out.npz")
        np.save(source, image)
        command = [sys.executable, __file__, cfg, weights, source, target, f"boxes:{classes}", str(threshold)]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-500:]
        with np.load(target) as arrays:
            rows: Floats = arrays["arr_0"]
            return rows


def _boxes(library: ctypes.CDLL, network: int, threshold: float, classes: int) -> Floats:
    library.get_network_boxes.restype = ctypes.POINTER(_Detection)
    library.get_network_boxes.argtypes = (
        ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_float, ctypes.c_void_p, ctypes.c_int,
        ctypes.POINTER(ctypes.c_int),
    )  # fmt: skip
    library.network_width.argtypes = library.network_height.argtypes = (ctypes.c_void_p,)
    count = ctypes.c_int()
    size = library.network_width(network), library.network_height(network)
    found = library.get_network_boxes(network, *size, threshold, 0.5, None, 1, ctypes.byref(count))
    rows = [
        (index, each.prob[index], *each.box)
        for each in found[: count.value]
        for index in range(classes)  # `each.classes` is set for [yolo] only
        if each.prob[index] > 0
    ]
    return np.array(rows, np.float32).reshape(-1, 6)


def _main(cfg: str, weights: str, source: str, target: str, layers: str, last: str) -> None:
    library = ctypes.CDLL(str(LIBRARY))
    library.load_network.restype = ctypes.c_void_p
    library.load_network.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
    library.network_predict.restype = ctypes.POINTER(ctypes.c_float)
    library.network_predict.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_float))
    library.get_network_image_layer.restype = _Image
    library.get_network_image_layer.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.set_batch_network.argtypes = (ctypes.c_void_p, ctypes.c_int)
    network = library.load_network(cfg.encode(), weights.encode(), 0)
    library.set_batch_network(network, 1)
    image = np.ascontiguousarray(np.load(source), np.float32)
    answer = library.network_predict(network, image.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
    if layers.startswith("boxes:"):
        np.savez(target, _boxes(library, network, float(last), int(layers.partition(":")[2])))
        return
    outputs = []
    for index in filter(None, layers.split(",")):
        seen = library.get_network_image_layer(network, int(index))
        outputs.append(np.ctypeslib.as_array(seen.data, (seen.c, seen.h, seen.w)).copy())
    if int(last):
        outputs.append(np.ctypeslib.as_array(answer, (int(last),)).copy())
    np.savez(target, *outputs)


if __name__ == "__main__":
    _main(*sys.argv[1:])
