from __future__ import annotations

import re
from pathlib import Path

from eightfold.export.tensorrt.options import BuildOptions

BUILDER = Path(__file__).parents[3] / "src/eightfold/runtime/cpp/src/trt_build.cpp"
# The C++ builder takes graphs as they are, with Q/DQ pairs for INT8; a record keeps no names of files.
PYTHON_ALONE = {
    "calibration_cache", "float_layers", "inner_outputs", "precision_constraints", "ranges", "timing_cache",
}  # fmt: skip


def test_the_cpp_builder_records_options_under_the_same_names() -> None:
    """A record with other names could not be read."""
    body = BUILDER.read_text().partition("json_of(const BuildOptions& options) {")[2].partition("\n}\n")[0]
    assert set(re.findall(r'\{"(\w+)", ', body)) == set(BuildOptions.model_fields) - PYTHON_ALONE
