"""An ONNX file becomes OpenVINO's own form: an `.xml` graph and a `.bin` of weights, which open without the ONNX
reader. Quantized graphs stay as they are: OpenVINO reads Q/DQ pairs from either."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from eightfold.errors import BuildError, UsageError
from eightfold.export.onnx_files import load_onnx
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path


def build_openvino(onnx_path: PathLike, output: PathLike) -> Path:
    """Write `output` (`.xml`) and its weights beside it (`.bin`), in float32 where the graph is.

    Raises:
        UsageError: `output` does not end in ".xml".
        BuildError: OpenVINO cannot read the graph.
    """
    output = Path(output)
    if output.suffix != ".xml":
        raise UsageError(f"output {output}", allowed="a name that ends in .xml")
    openvino = require("openvino", "build OpenVINO models")
    load_onnx(onnx_path)  # refuses what is no ONNX file, in words
    try:
        model = openvino.Core().read_model(str(onnx_path))
    except RuntimeError as error:
        raise BuildError(
            f"OpenVINO cannot read {onnx_path} ({str(error).strip().splitlines()[-1][:200]})",
            allowed="operators that OpenVINO has",
            remedy="run the ONNX file with another backend",
        ) from error
    _name_by_place(model)
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        written = Path(folder) / "model.xml"
        openvino.save_model(model, str(written), compress_to_fp16=False)
        # Weights first: an .xml without its .bin cannot be opened, the other way round nobody looks.
        for suffix in (".bin", ".xml"):
            with atomic_path(output.with_suffix(suffix)) as temporary:
                temporary.write_bytes(written.with_suffix(suffix).read_bytes())
    return output


def _name_by_place(model: Any) -> None:
    """OpenVINO names what has no name by a counter of the process; the place in the graph is the same every time."""
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{kind}/{place}")
