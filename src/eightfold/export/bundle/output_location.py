"""Checks the output location of a bundle before the work starts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from eightfold.errors import UsageError
from eightfold.files import PathLike, require_folder_for, require_output, require_replaceable
from eightfold.runtime.bundle.bundle_names import MANIFEST_DIGEST_NAME, MANIFEST_NAME, SUFFIX

# A directory of such a name would be taken for a file.
FILE_SUFFIXES = (".zip", ".onnx", ".engine", ".tar", ".gz", ".json")


def require_bundle_output(path: PathLike, *, reads: Iterable[PathLike | None] = ()) -> None:
    """Refuse, before the work and not behind it, a name that `write_bundle` could not write.

    Raises:
        UsageError: a file that is read, a folder of other things, or the name of another kind of file.
    """
    path = Path(path)
    if path.suffix == SUFFIX:
        require_output(path, reads=reads)
        return
    if path.suffix in FILE_SUFFIXES and not path.exists():
        raise UsageError(
            f"{path} as a bundle", allowed=f"a directory's name, or one that ends in {SUFFIX} for one file"
        )
    require_replaceable(path, marks_of(path))
    require_folder_for(path)


def marks_of(directory: Path) -> tuple[str, ...]:
    """The names by which one knows a bundle in a directory: a manifest.json only where it is one of ours."""
    try:
        content = json.loads((directory / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError):
        content = None
    ours = isinstance(content, dict) and {"schema", "artifacts", "files"} <= content.keys()
    return (MANIFEST_NAME, MANIFEST_DIGEST_NAME) if ours else (MANIFEST_DIGEST_NAME,)
