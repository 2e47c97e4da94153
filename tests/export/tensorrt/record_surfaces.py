"""Records which names TensorRT's Python module has in which version, from the bindings' sources.

    python tests/export/tensorrt/record_surfaces.py CLONE > tests/export/tensorrt/surfaces.json

CLONE is a clone of https://github.com/NVIDIA/TensorRT; the sources are python/src of the commits named below.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

COMMITS = {
    "8.2": "ca03dc6b",
    "8.4": "87f33944",
    "8.5": "b0c259a7",
    "8.6": "3d979324",
    "10.0": "d3107c88",
    "10.3": "84dd6ed1",
    "10.7": "17003e43",
    "10.11": "9255eb39",
    "10.12": "6d178ce8",
    "10.13": "94e2b9ef",
    "10.16": "5302b288",
    "11.0": "771d8efd",
    "11.1": "82d1dca8",
}
FILES = (
    "infer/pyCore.cpp",
    "infer/pyGraph.cpp",
    "infer/pyInt8.cpp",
    "infer/pyFoundationalTypes.cpp",
    "parsers/pyOnnx.cpp",
)
ENUMS = (
    "BuilderFlag",
    "NetworkDefinitionCreationFlag",
    "MemoryPoolType",
    "TacticSource",
    "HardwareCompatibilityLevel",
    "ProfilingVerbosity",
    "DeviceType",
    "OnnxParserFlag",
    "EngineCapability",
    "LayerInformationFormat",
    "SerializationFlag",
)
CLASSES = (
    "Builder",
    "IBuilderConfig",
    "INetworkDefinition",
    "ILayer",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "IInt8EntropyCalibrator2",
    "IInt8MinMaxCalibrator",
    "ICudaEngine",
    "Runtime",
    "IHostMemory",
    "EngineInspector",
    "ISerializationConfig",
    "Refitter",
    "OnnxParserRefitter",
)

# What no release is compiled with.
NOT_RELEASED = r"#if ENABLE_INETWORK_SERIALIZE.*?#endif"


def surface(clone: str, commit: str) -> dict[str, list[str]]:
    """Class or enum -> its names, sorted; what a version does not have is left out."""
    sources = "\n".join(_source(clone, commit, file) for file in FILES)
    sources = re.sub(NOT_RELEASED, "", sources, flags=re.DOTALL)
    found = {name: _members(sources, r"enum_<", name, r"\.value\(\s*\"(\w+)\"") for name in ENUMS}
    found |= {name: _members(sources, r"class_<", name, r"(?<!\bm)\.def(?:_\w+)?\(\s*\"(\w+)\"") for name in CLASSES}
    return {name: members for name, members in found.items() if members is not None}


def _source(clone: str, commit: str, file: str) -> str:
    command = ["git", "-C", clone, "show", f"{commit}:python/src/{file}"]
    return subprocess.run(command, capture_output=True, text=True).stdout  # "" where that version has no such file


def _members(source: str, opening: str, name: str, member: str) -> list[str] | None:
    start = re.search(opening + r"[^;\"]*\(\s*m,\s*\"" + name + '"', source)
    if start is None:
        return None
    block = source[start.end() :]
    end = re.search(r"\bpy::(class_|enum_)<", block)  # the next one begins
    return sorted(set(re.findall(member, block[: end.start() if end else None])))


if __name__ == "__main__":
    table = {version: {"commit": commit, "names": surface(sys.argv[1], commit)} for version, commit in COMMITS.items()}
    print(json.dumps({"source": "https://github.com/NVIDIA/TensorRT", "versions": table}, indent=1, sort_keys=True))
