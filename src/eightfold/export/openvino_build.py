"""An ONNX file becomes OpenVINO's own form: an `.xml` graph and a `.bin` of weights, which open without the ONNX
reader. Quantized graphs stay as they are: OpenVINO reads Q/DQ pairs from either."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from eightfold.errors import BuildError, UsageError
from eightfold.export.checks import require_alike
from eightfold.export.onnx_files import load_onnx, tensor_specs
from eightfold.export.subjects import subject_of
from eightfold.export.verify import Arrays, Tolerance, compare_in_order, random_inputs_of
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path

TOLERANCE = Tolerance(cosine=0.99)


def build_openvino(onnx_path: PathLike, output: PathLike) -> Path:
    """Write `output` (`.xml`) and its weights beside it (`.bin`), in float32 where the graph is.

    What was written answers as onnxruntime does, within a cosine of 0.99: INT8 kernels round in their own ways.

    Raises:
        UsageError: `output` does not end in ".xml".
        BuildError: OpenVINO cannot read the graph.
        VerificationError: its answer is another one; nothing is written.
    """
    output = Path(output)
    if output.suffix != ".xml":
        raise UsageError(f"output {output}", allowed="a name that ends in .xml")
    openvino = require("openvino", "build OpenVINO models")
    specs, _ = tensor_specs(load_onnx(onnx_path))  # refuses what is no ONNX file, in words
    model = read_openvino(onnx_path)
    _name_by_place(model)
    with tempfile.TemporaryDirectory(prefix="eightfold-") as folder:
        written = Path(folder) / "model.xml"
        openvino.save_model(model, str(written), compress_to_fp16=False)
        _verify(onnx_path, written, random_inputs_of(specs))
        # Weights first: an .xml without its .bin cannot be opened, the other way round nobody looks.
        for suffix in (".bin", ".xml"):
            with atomic_path(output.with_suffix(suffix)) as temporary:
                temporary.write_bytes(written.with_suffix(suffix).read_bytes())
    return output


def read_openvino(onnx_path: PathLike) -> Any:
    """OpenVINO's model of an ONNX file. Raises BuildError where OpenVINO cannot read it."""
    try:
        return require("openvino", "build OpenVINO models").Core().read_model(str(onnx_path))
    except RuntimeError as error:
        raise BuildError(
            f"OpenVINO cannot read {onnx_path} ({str(error).strip().splitlines()[-1][:200]})",
            allowed="operators that OpenVINO has",
            remedy="run the ONNX file with another backend",
        ) from error


def _verify(onnx_path: PathLike, written: Path, inputs: Arrays) -> None:
    """Compare the answers of OpenVINO and onnxruntime. Raises VerificationError beyond the tolerance."""
    known, seen = subject_of(Path(onnx_path)), subject_of(written)
    found = compare_in_order(list(known.run(inputs).values()), seen.run(seen.fed(inputs)))
    require_alike(found, TOLERANCE, step="OpenVINO's form", probes=(known.probe, seen.probe), inputs=inputs)


def _name_by_place(model: Any) -> None:
    """OpenVINO names what has no name by a counter of the process; the place in the graph is the same every time."""
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{kind}/{place}")
