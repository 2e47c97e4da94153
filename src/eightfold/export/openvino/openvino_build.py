"""An ONNX file becomes OpenVINO's own form: an `.xml` graph and a `.bin` of weights, which open without the ONNX
reader. Quantized graphs stay as they are: OpenVINO reads Q/DQ pairs from either."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eightfold.arrays import Arrays
from eightfold.errors import BuildError, UsageError
from eightfold.export.compare.runnables import runnable_of
from eightfold.export.int8.layer_precisions import layer_precisions
from eightfold.export.openvino.openvino_record import OpenVinoRecord, openvino_record_path
from eightfold.export.verify.intermediates.probe import Converting
from eightfold.export.verify.reference import Reference
from eightfold.export.verify.test_inputs import InputSets, input_sets_of
from eightfold.export.verify.verify import Tolerance
from eightfold.extras import require
from eightfold.files import PathLike, atomic_path, sha256_of_file
from eightfold.onnx_graph.onnx_files import load_onnx, tensor_specs
from eightfold.runtime.bundle.manifest import Step
from eightfold.scratch import scratch_folder

TOLERANCE = Tolerance(cosine=0.99)


def build_openvino(onnx_path: PathLike, output: PathLike, *, inputs: Arrays | None = None) -> Path:
    """Write `output` (`.xml`) and its weights beside it (`.bin`), in float32 where the graph is; and its record to
    `<output>.json`.

    What was written answers as onnxruntime does, within a cosine of 0.99: INT8 kernels round in their own ways.

    Args:
        onnx_path: a fixed-size ONNX file.
        output: where OpenVINO's form goes.
        inputs: real inputs by name to compare on, beside constants, extremes and noise; random ones when None. More
            rows than the network's batch are run in turn.

    Raises:
        UsageError: `output` does not end in ".xml".
        BuildError: OpenVINO cannot read the graph.
        VerificationError: its answer is another one; nothing is written.
    """
    output = Path(output)
    if output.suffix != ".xml":
        raise UsageError(f"output {output}", allowed="a name that ends in .xml")
    openvino = require("openvino", "build OpenVINO models")
    graph = load_onnx(onnx_path)
    taken, given = tensor_specs(graph)  # refuses what is no ONNX file, in words
    model = read_openvino(onnx_path)
    _name_by_place(model)
    with scratch_folder() as folder:
        written = folder / "model.xml"
        openvino.save_model(model, str(written), compress_to_fp16=False)
        version = openvino.__version__.partition("-")[0]
        step = _verify(onnx_path, written, input_sets_of(taken, inputs)).model_copy(
            update={"tool": f"openvino {version}"}
        )
        # Weights first: an .xml without its .bin cannot be opened, the other way round nobody looks.
        for suffix in (".bin", ".xml"):
            with atomic_path(output.with_suffix(suffix)) as temporary:
                temporary.write_bytes(written.with_suffix(suffix).read_bytes())
    OpenVinoRecord(
        version=version,
        onnx_sha256=sha256_of_file(onnx_path),
        layers=layer_precisions(graph),
        inputs=taken,
        outputs=given,
        steps=(step,),
    ).save(openvino_record_path(output))
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


def _verify(onnx_path: PathLike, written: Path, input_sets: InputSets) -> Step:
    """Compare the answers of OpenVINO and onnxruntime. Raises VerificationError beyond the tolerance."""
    known, seen = runnable_of(Path(onnx_path)), runnable_of(written)
    reference = Reference(known.run, input_sets, known.probe)
    probe = None if seen.probe is None else Converting(seen.probe, seen.fed)
    return reference.verify(
        lambda inputs: seen.run(seen.fed(inputs)), step="build for OpenVINO", tolerance=TOLERANCE, probe=probe
    )


def _name_by_place(model: Any) -> None:
    """OpenVINO names what has no name by a counter of the process; the place in the graph is the same every time."""
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{kind}/{place}")
