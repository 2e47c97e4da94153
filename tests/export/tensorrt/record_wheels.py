"""Records which names of surfaces.json the compiled bindings hold, version by version: the binary beside the sources.

    pip download --no-deps --only-binary :all: -d WHEELS tensorrt-cu12-bindings==10.13.0.35   # and further versions
    python tests/export/tensorrt/record_wheels.py WHEELS > tests/export/tensorrt/wheels.json

Nothing is imported: the library needs TensorRT's own, which is not in these wheels. A name that Python sees lies in the
binary as a string that ends with a zero byte. Linkers store a string that ends another one inside it ("shape" in
"get_shape"), and a name of another class counts as well: what is absent is certain, what is found is only possible.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

from eightfold.files import sha256_of_file

LIBRARY_SUFFIX = "/tensorrt.so"


def recorded_names(surfaces: Path) -> list[str]:
    """Every name that some class or enumeration of some version has."""
    versions = json.loads(surfaces.read_text())["versions"].values()
    return sorted({name for version in versions for members in version["names"].values() for name in members})


def record(wheel: Path, names: list[str]) -> dict[str, object]:
    """Which wheel it was, and the names that its library lacks."""
    with zipfile.ZipFile(wheel) as archive:
        (library,) = [name for name in archive.namelist() if name.endswith(LIBRARY_SUFFIX)]
        content = archive.read(library)
    return {
        "wheel": wheel.name,
        "sha256": sha256_of_file(wheel),
        "absent": [name for name in names if name.encode() + b"\0" not in content],
    }


def main(folder: str) -> None:
    names = recorded_names(Path(__file__).with_name("surfaces.json"))
    wheels = sorted(Path(folder).glob("*.whl"), key=_version)
    table = {".".join(map(str, _version(wheel))): record(wheel, names) for wheel in wheels}
    print(json.dumps(table, indent=1))


def _version(wheel: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in wheel.name.split("-")[1].split(".") if part.isdigit())


if __name__ == "__main__":
    main(*sys.argv[1:])
