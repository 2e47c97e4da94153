"""Cache folder of the back ends, for files that take long to make and can be made again: never in a bundle, which holds
only the files of its manifest."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path | None:
    """A folder below the user's cache (XDG_CACHE_HOME, else ~/.cache), made if need be; None where none can be made."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(root, "eightfold", *parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder
