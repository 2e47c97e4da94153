"""TensorRT's calibration cache, the text file that `trtexec --calib` and the calibrators of TensorRT 8 and 10 read.

    TRT-8601-EntropyCalibration2
    images: 3c010a14

The first line names version and algorithm. Each further line holds a tensor and its scale, threshold / 127, as the
eight hex digits of a float32, most significant byte first. TensorRT 11 has no calibrators and no caches.

NVIDIA documents the format nowhere. Where it is read off:
- byte order, and that the number is a scale: NVIDIA's own reader, `struct.unpack('>f', ...)` into 'scale', in
  https://github.com/nvdla/sw/blob/master/umd/utils/calibdata/calib_txt_to_json.py;
- files that TensorRT 8.2.5 and 8.6.1 wrote: several tensors of a YOLOv8 have 3c010a14, which is 1.0003 / 127, as
  saturated sigmoids must (https://github.com/ultralytics/ultralytics/issues/14121,
  https://github.com/NVIDIA/TensorRT/issues/2958).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Literal

import numpy as np

from eightfold.calib.ranges import Method, Ranges, TensorRange
from eightfold.errors import CalibrationError, UsageError
from eightfold.files import PathLike
from eightfold.onnx_graph.graph import ModelGraph, read_graph

Algorithm = Literal["entropy", "entropy2", "minmax", "legacy"]
HEADER_NAMES: dict[Algorithm, str] = {
    "entropy": "EntropyCalibration",
    "entropy2": "EntropyCalibration2",
    "minmax": "MinMaxCalibration",
    "legacy": "LegacyCalibration",
}
METHOD_OF: dict[str, Method] = {
    "EntropyCalibration": "entropy",
    "EntropyCalibration2": "entropy",
    "MinMaxCalibration": "minmax",
    "LegacyCalibration": "percentile",
}
LEVELS = 127
HEADER = re.compile(r"TRT-(\d+)-(\w+)")


def cache_from_ranges(ranges: Ranges, *, version: str = "8.6.1", algorithm: Algorithm = "entropy2") -> str:
    """The cache file's text.

    Args:
        ranges: of the network that TensorRT will build; it must parse a graph with the same tensor names.
        version: the TensorRT that will read it, such as "8.2.1" or "10.3.0"; another one ignores the file.
        algorithm: the calibrator that will read it.

    >>> entry = TensorRange(min=-1, max=1, low=-1, high=1, threshold=1)
    >>> ranges = Ranges(method="entropy", images=1, image_set="", graph="", tensors={"images": entry})
    >>> print(cache_from_ranges(ranges), end="")
    TRT-8601-EntropyCalibration2
    images: 3c010204
    """
    lines = [f"TRT-{version_number(version)}-{HEADER_NAMES[algorithm]}"]
    lines += [f"{name}: {hex_of(entry.threshold / LEVELS)}" for name, entry in ranges.tensors.items()]
    return "\n".join(lines) + "\n"


def version_number(version: str) -> int:
    """NV_TENSORRT_VERSION: 8601 for 8.6.1, 100300 for 10.3.0.

    Raises:
        UsageError: not a version, or one without calibrators.
    """
    parts = [int(part) if part.isdigit() else -1 for part in version.split(".")[:3]]
    major, minor, patch = [*parts, 0, 0][:3]
    if min(parts) < 0 or not 7 <= major <= 10:
        raise UsageError(
            f"TensorRT {version} reads no calibration cache",
            allowed="7 to 10, such as 8.6.1",
            remedy="quantize with target 'tensorrt:11' instead",
        )
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def hex_of(value: float) -> str:
    """A float32's eight hex digits, most significant byte first."""
    return struct.pack(">f", value).hex()


def thresholds_from_cache(text: str, *, source: str = "cache") -> tuple[Method, dict[str, float]]:
    """The method and every tensor's threshold, in real units.

    Raises:
        CalibrationError: not a calibration cache; the first line at fault is shown.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    header = HEADER.fullmatch(lines[0].strip()) if lines else None
    if header is None or header[2] not in METHOD_OF:
        raise CalibrationError(
            f"{source} starts with {lines[0] if lines else ''!r:.60}",
            allowed="a line such as 'TRT-8601-EntropyCalibration2'",
            remedy="pass a TensorRT calibration cache",
        )
    return METHOD_OF[header[2]], dict(_entry(line, source) for line in lines[1:])


def _entry(line: str, source: str) -> tuple[str, float]:
    name, colon, digits = line.rpartition(":")  # names may hold colons
    if not colon or not re.fullmatch(r"[0-9a-fA-F]{1,8}", digits.strip()):
        raise CalibrationError(f"{source}: {line!r:.60}", allowed="'tensor: eight hex digits'")
    (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip().zfill(8)))
    # Exactly what gives the same scale again.
    return name.strip(), float(np.float64(scale) * LEVELS)


def ranges_from_cache(text: str, graph: ModelGraph, *, source: str = "cache") -> Ranges:
    """Ranges for a network whose calibration was done by TensorRT. Their images are not known.

    Tensors of the network that the cache lacks (TensorRT leaves out what it fused) are left out here, too.

    Raises:
        CalibrationError: not a cache, or none of its tensors is in the network.
    """
    method, thresholds = thresholds_from_cache(text, source=source)
    known = {name: value for name, value in thresholds.items() if name in graph.activations}
    if not known:
        raise CalibrationError(f"{source} shares no tensor with {graph.name}", allowed="the cache of that network")
    tensors = {name: TensorRange(min=-v, max=v, low=-v, high=v, threshold=v) for name, v in known.items()}
    return Ranges(method=method, images=0, image_set="", graph=graph.digest(), tensors=tensors)


def read_ranges(path: PathLike, onnx_path: PathLike) -> Ranges:
    """Ranges from a file: what `Ranges.save` wrote, or a TensorRT calibration cache of that network.

    Raises:
        CalibrationError: neither, or of another network.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""
    if text.startswith("TRT-"):
        return ranges_from_cache(text, read_graph(onnx_path), source=str(path))
    return Ranges.load(path)
